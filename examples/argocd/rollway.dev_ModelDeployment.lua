-- How a ModelDeployment is, for Argo CD. Its status follows kstatus; docs/gitops.md says what is shown when.
local health = {status = "Progressing", message = "waiting for the operator to look at it"}

if obj.status == nil or obj.status.conditions == nil then
  return health
end
if obj.status.observedGeneration ~= obj.metadata.generation then
  health.message = "waiting for the operator to look at the last change"
  return health
end

local holds = {}
for _, condition in ipairs(obj.status.conditions) do
  holds[condition.type] = condition.status == "True"
end

health.message = obj.status.message
if holds.Stalled then
  health.status = "Degraded"
elseif holds.Reconciling then
  health.status = "Progressing"
elseif holds.Paused then
  health.status = "Suspended"
elseif holds.Ready then
  health.status = "Healthy"
end
return health
