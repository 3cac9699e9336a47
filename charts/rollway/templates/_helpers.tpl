{{/* The one name of everything the operator owns; a release name has at most 53 characters, so it is a DNS label. */}}
{{- define "rollway.name" -}}
{{ .Release.Name }}-operator
{{- end }}

{{/* The labels by which the operator's pod is selected; they never change. */}}
{{- define "rollway.selectorLabels" -}}
app.kubernetes.io/name: rollway
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "rollway.labels" -}}
{{ include "rollway.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: rollway
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The subject of every binding of this chart. */}}
{{- define "rollway.subjects" -}}
- kind: ServiceAccount
  name: {{ include "rollway.name" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* The keys of the taints that models may tolerate, with commas between them. */}}
{{- define "rollway.tolerationKeys" -}}
{{- $keys := list }}
{{- range .Values.modelTolerations }}
{{- $keys = append $keys .key }}
{{- end }}
{{- join "," $keys }}
{{- end }}

{{/* Who is told what, as the operator reads it; two receivers of one name would share a volume. */}}
{{- define "rollway.notifications" -}}
{{- $names := dict }}
{{- range .Values.notifications.receivers }}
{{- if hasKey $names .name }}
{{- fail (printf "notifications.receivers: the name %s is there twice; give each receiver its own" .name) }}
{{- end }}
{{- $_ := set $names .name true }}
{{- end }}
{{- .Values.notifications | toPrettyJson }}
{{- end }}

{{/* A Gateway as the operator reads it: namespace/name, with a listener namespace/name/section; empty for none. */}}
{{- define "rollway.gatewayRef" -}}
{{- with . }}{{ join "/" (compact (list .namespace .name .sectionName)) }}{{ end }}
{{- end }}

{{/* The namespaces from which requests reach models whatever their authors say, with commas between them. */}}
{{- define "rollway.gatewayNamespaces" -}}
{{- $gateways := compact (list .Values.gateway.http.namespace .Values.gateway.grpc.namespace) }}
{{- join "," (.Values.networkPolicy.gatewayNamespaces | default (uniq $gateways)) }}
{{- end }}

{{/* Whether objects of the Prometheus Operator are made: not before the cluster has their definitions, unless told to. */}}
{{- define "rollway.monitored" -}}
{{- $known := .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" }}
{{- if and .Values.monitoring.enabled (or $known .Values.monitoring.force) }}true{{ end }}
{{- end }}

{{/* The labels by which Prometheus or Grafana find an object, with the chart's own over them. */}}
{{- define "rollway.monitoringLabels" -}}
{{- mergeOverwrite (deepCopy .labels) (include "rollway.labels" .root | fromYaml) | toYaml }}
{{- end }}

{{/* What every monitor carries, as the operator reads it: key=value, with commas between them. */}}
{{- define "rollway.monitorLabels" -}}
{{- $labels := list }}
{{- range $key, $value := .Values.monitoring.labels }}
{{- $labels = append $labels (printf "%s=%s" $key $value) }}
{{- end }}
{{- join "," $labels }}
{{- end }}
