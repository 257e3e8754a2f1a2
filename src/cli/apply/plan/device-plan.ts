import type { DesiredDevice } from "../file/desired.ts";
import type { OrgState } from "../state.ts";
import { isSame } from "./plan-fields.ts";
import type { DeviceStep } from "./steps.ts";

/** The step that gives a device the labels of the file, and takes the other labels of people. */
export function deviceStep(wanted: DesiredDevice, state: OrgState): DeviceStep {
  const before = state.devices.find(({ id }) => id === wanted.device)?.labels ?? [];
  const after = wanted.labels;
  return {
    ...{ kind: "device", id: wanted.name, agent: "", wanted, willRestart: false, note: "" },
    action: isSame(before, after) ? "noop" : "update",
    fields: isSame(before, after) ? [] : [{ field: "labels", before, after }],
    add: after.filter((label) => !before.includes(label)),
    remove: before.filter((label) => !after.includes(label)),
  };
}
