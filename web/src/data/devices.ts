import { computed } from "@preact/signals";
import type { Device } from "#gen/pinion/v1/fleet_pb.js";
import { fleet } from "./api.ts";
import { createCollection, naturally } from "./collection.ts";

const pageSize = 500;
export const devices = createCollection<Device>({
  async *pages(signal) {
    let pageToken = "";
    do {
      const page = await fleet.listDevices({ pageSize, pageToken, includeLastRun: true }, { signal });
      yield page.devices;
      pageToken = page.nextPageToken;
    } while (pageToken !== "");
  },
  get: async (deviceId) => (await fleet.getDevice({ deviceId })).device,
  idOf: (device) => device.id,
  orderOf: (device) => `${naturally(device.label)} ${device.id}`,
  isNamed: true,
});

/** The devices available for a watcher, with unique names. */
export const deviceOptions = computed(() => {
  const pinnable = devices.items.value.filter((device) => !device.isWorker);
  const labels = Map.groupBy(pinnable, ({ label }) => label);
  return pinnable.map(({ id, label }) => ({
    value: id,
    label: labels.get(label)!.length > 1 ? `${label} (${id.slice(-8)})` : label,
  }));
});

/** Labels shared by several devices. */
export const sharedLabels = computed(() => {
  const seen = new Set<string>();
  const shared = new Set<string>();
  for (const { label } of devices.items.value) (seen.has(label) ? shared : seen).add(label);
  return shared;
});

/** Name of a device by its id: the label, with the end of the id if the label is shared. */
export function labelOf(deviceId: string): string {
  const label = devices.find(deviceId)?.label;
  if (!label) return deviceId.slice(-8);
  return sharedLabels.value.has(label) ? `${label} (${deviceId.slice(-8)})` : label;
}

/** Executors of a device, by name; without a device the executors of all. */
export function executorsOf(deviceId: string): { value: string; label: string }[] {
  return offersOf(deviceId, ({ executors, agentKinds }) =>
    executors.length > 0
      ? executors.map(({ kind, type, version }) => ({ value: kind, label: [type, version].join(" ").trim() }))
      : agentKinds.map((kind) => ({ value: kind, label: kind })),
  );
}

/** Workspaces of a device, by name; without a device those of all. */
export function workspacesOf(deviceId: string): { value: string; label: string }[] {
  return offersOf(deviceId, ({ workspaces }) => workspaces.map(({ name }) => ({ value: name, label: name })));
}

function offersOf(
  deviceId: string,
  offers: (device: Device) => { value: string; label: string }[],
): { value: string; label: string }[] {
  const meant = devices.items.value.filter(({ id }) => deviceId === "" || id === deviceId);
  return [...new Map(meant.flatMap(offers).map((offer) => [offer.value, offer])).values()].slice(0, 100);
}
