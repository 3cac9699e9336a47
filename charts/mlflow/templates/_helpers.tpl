{{/* Everything of the server bears the release's name, everything of the store that name and -s3. */}}
{{- define "mlflow.selectorLabels" -}}
app.kubernetes.io/name: mlflow
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "mlflow.labels" -}}
{{ include "mlflow.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Whether the server needs a volume: for SQLite, or for artifacts that are in no bucket. */}}
{{- define "mlflow.onVolume" -}}
{{- if or (not .Values.database.uriSecretName) (eq (include "mlflow.destination" .) "/data/artifacts") }}true{{ end }}
{{- end }}

{{- define "mlflow.destination" -}}
{{- .Values.artifacts.destination | default (ternary "s3://mlflow/" "/data/artifacts" .Values.s3.enabled) }}
{{- end }}

{{/* The value of the variable that holds the database's URI. */}}
{{- define "mlflow.databaseURI" -}}
{{- with .Values.database.uriSecretName -}}
valueFrom:
  secretKeyRef:
    name: {{ . }}
    key: uri
{{- else -}}
value: sqlite:////data/mlflow.db
{{- end }}
{{- end }}

{{- define "mlflow.endpoint" -}}
{{- .Values.artifacts.endpoint | default (ternary (printf "http://%s.%s.svc:8333" .Values.s3.serviceName .Release.Namespace) "" .Values.s3.enabled) }}
{{- end }}

{{/* Names by which the server may be called. MLflow compares the whole Host header: each name plain and with any port. */}}
{{- define "mlflow.allowedHosts" -}}
{{- $service := .Release.Name }}
{{- $namespaced := printf "%s.%s" $service .Release.Namespace }}
{{- $names := list $service $namespaced (printf "%s.svc" $namespaced) (printf "%s.svc.%s" $namespaced .Values.clusterDomain) }}
{{- $names = concat $names .Values.ingress.hosts .Values.allowedHosts (list "localhost" "127.0.0.1" "$(POD_IP)") | uniq }}
{{- $hosts := list }}
{{- range $names }}
{{- $hosts = concat $hosts (list . (printf "%s:*" .)) }}
{{- end }}
{{- join "," $hosts }}
{{- end }}

{{/* Credentials and address of a bucket, as boto3 reads them. */}}
{{- define "mlflow.bucketEnvironment" -}}
{{- if hasPrefix "s3://" (include "mlflow.destination" .) -}}
- name: AWS_DEFAULT_REGION
  value: {{ .Values.artifacts.region }}
{{- with include "mlflow.endpoint" . }}
- name: MLFLOW_S3_ENDPOINT_URL
  value: {{ . }}
{{- end }}
{{- with .Values.artifacts.credentialsSecretName | default (ternary .Values.s3.credentialsSecretName "" .Values.s3.enabled) }}
{{ include "mlflow.keys" . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "mlflow.keys" -}}
- name: AWS_ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: accessKeyId
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: secretAccessKey
{{- end }}

{{/* What every pod has in common: the restricted Pod Security standard, no token, and where it may run. */}}
{{- define "mlflow.podBasics" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "mlflow.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Whether objects of the Prometheus Operator are made: not before the cluster has their definitions, unless told to. */}}
{{- define "mlflow.monitored" -}}
{{- $known := .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" }}
{{- if and .Values.monitoring.enabled (or $known .Values.monitoring.force) }}true{{ end }}
{{- end }}

{{/* The labels by which a Prometheus finds an object, with the chart's own over them. */}}
{{- define "mlflow.monitoringLabels" -}}
{{- $own := include "mlflow.labels" (dict "root" . "component" "server") | fromYaml }}
{{- mergeOverwrite (deepCopy .Values.monitoring.labels) $own | toYaml }}
{{- end }}
