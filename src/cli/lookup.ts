import type { Device } from "#gen/pinion/v1/fleet_pb.js";
import { isUuid } from "../values/ids.ts";
import type { Clients } from "./context.ts";
import { exitCodes, Failure } from "./failures.ts";
import { collect, lookupItemsMax } from "./print/paging.ts";
import { plain } from "./print/table.ts";

/** All devices of the org, by label. */
export async function allDevices(clients: Clients): Promise<Device[]> {
  const { items } = await collect(lookupItemsMax, async (page) => {
    const answer = await clients.fleet.listDevices(page);
    return { items: answer.devices, nextPageToken: answer.nextPageToken };
  });
  return items;
}

/** The id of a device given by id or label. Refuses a label shared by several devices. */
export async function deviceId(clients: Clients, named: string): Promise<string> {
  if (isUuid(named)) return named.toLowerCase();
  return deviceAmong(await allDevices(clients), named).id;
}

/** The single device with the given label, id, or unique beginning of an id. */
export function deviceAmong(devices: readonly Device[], named: string): Device {
  const byId = isUuid(named) ? devices.find((device) => device.id === named.toLowerCase()) : undefined;
  if (byId) return byId;
  const isLabel = devices.some(({ label }) => label.toLowerCase() === named.toLowerCase());
  const isOfId = isBeginning(named) && devices.some(({ id }) => id.startsWith(named.toLowerCase()));
  if (isLabel || !isOfId) return oneByLabel(devices, named);
  return oneBeginning("device", devices, named);
}

/**
 * The single device with the label; upper and lower case matter only if needed for a distinction.
 */
export function oneByLabel(devices: readonly Device[], label: string): Device {
  const exact = devices.filter((device) => device.label === label);
  const found =
    exact.length > 0 ? exact : devices.filter((device) => device.label.toLowerCase() === label.toLowerCase());
  const [first, ...others] = found;
  if (first !== undefined && others.length === 0) return first;
  if (found.length > 1) {
    throw new Failure(
      exitCodes.usage,
      `${found.length} devices are called "${label}"`,
      `name one by its id: ${found.map((device) => device.id).join(", ")}`,
    );
  }
  throw new Failure(
    exitCodes.notFound,
    `no device is called "${label}"`,
    "`pinion devices list` shows what there is",
  );
}

/**
 * Labels of devices by id, for lists. Empty without the permission to list devices: ids are then
 * shown.
 */
export async function deviceLabels(clients: Clients): Promise<Map<string, string>> {
  try {
    const devices = await allDevices(clients);
    const shared = sharedLabels(devices);
    return new Map(devices.map((device) => [device.id, nameOf(device, shared)]));
  } catch {
    return new Map();
  }
}

/** The id of a member given by id or email address. */
export async function memberId(clients: Clients, named: string): Promise<string> {
  if (isUuid(named)) return named.toLowerCase();
  const { items } = await collect(lookupItemsMax, async (request) => {
    const answer = await clients.orgs.listMembers(request);
    return { items: answer.members, nextPageToken: answer.nextPageToken };
  });
  const found = items.find((member) => member.email === named.toLowerCase());
  if (found) return found.userId;
  throw new Failure(
    exitCodes.notFound,
    `no member has the address "${named}"`,
    "`pinion orgs members` shows who there is",
  );
}

/** Minimum length of a beginning: ids begin with their time, and six digits cover four hours. */
const idBeginningMin = 6;
/** Number of newest runs searched for a beginning. */
const runsLookedAt = 2_000;
const isBeginning = (text: string) => text.length >= idBeginningMin && /^[0-9a-f-]+$/i.test(text);

/** The id of a run given by its id, or by a beginning unique among the newest runs. */
export async function runId(clients: Clients, text: string): Promise<string> {
  if (isUuid(text)) return text.toLowerCase();
  if (!isBeginning(text)) {
    throw new Failure(
      exitCodes.usage,
      `"${text}" is no run id`,
      `a run is named by its id or its beginning, ${idBeginningMin} characters at least; \`pinion runs list\` shows them`,
    );
  }
  const { items } = await collect(runsLookedAt, async (page) => {
    const answer = await clients.runs.listRuns(page);
    return { items: answer.runs, nextPageToken: answer.nextPageToken };
  });
  return oneBeginning("run", items, text).id;
}

/** The single item with an id that begins with the text. */
function oneBeginning<Item extends { id: string }>(noun: string, items: readonly Item[], text: string): Item {
  const found = items.filter(({ id }) => id.startsWith(text.toLowerCase()));
  const [first] = found;
  if (first !== undefined && found.length === 1) return first;
  if (first === undefined) {
    throw new Failure(
      exitCodes.notFound,
      `no ${noun}'s id begins with "${text}"`,
      `\`pinion ${noun}s list\` shows what there is; an older one is named by its whole id`,
    );
  }
  throw new Failure(
    exitCodes.usage,
    `${found.length} ${noun}s' ids begin with "${text}"`,
    `write more of it: ${found
      .slice(0, 5)
      .map(({ id }) => id)
      .join(", ")}${found.length > 5 ? ", …" : ""}`,
  );
}

/** Labels of several devices. */
export function sharedLabels(devices: readonly { label: string }[]): Set<string> {
  const seen = new Set<string>();
  return new Set(devices.flatMap(({ label }) => (seen.size === seen.add(label).size ? [label] : [])));
}

/** A device's label; with the end of the id if other devices have the label too. */
export function nameOf({ id, label }: { id: string; label: string }, shared: ReadonlySet<string>): string {
  return shared.has(label) ? `${plain(label)} (${id.slice(-8)})` : plain(label);
}
