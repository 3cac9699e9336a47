-- How a ModelRegistry is, for Argo CD. Models that serve do not depend on it.
local health = {status = "Progressing", message = "waiting for the operator to look at it"}

if obj.status == nil or obj.status.conditions == nil then
  return health
end

for _, condition in ipairs(obj.status.conditions) do
  if condition.type == "Ready" then
    if condition.observedGeneration ~= obj.metadata.generation then
      health.message = "waiting for the operator to look at the last change"
    else
      health.status = condition.status == "True" and "Healthy" or "Degraded"
      health.message = condition.message
    end
  end
end
return health
