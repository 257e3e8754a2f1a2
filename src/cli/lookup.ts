import type { Device } from "#gen/pinion/v1/fleet_pb.js";
import { isUuid } from "../ids.ts";
import type { Clients } from "./context.ts";
import { exitCodes, Failure } from "./failures.ts";
import { collect, lookupItemsMax } from "./print/paging.ts";

/** All devices of the org, by label. */
export async function allDevices(clients: Clients): Promise<Device[]> {
  const { items } = await collect(lookupItemsMax, async (page) => {
    const answer = await clients.fleet.listDevices(page);
    return { items: answer.devices, nextPageToken: answer.nextPageToken };
  });
  return items;
}

/** The id of the device that a person names by id or label. A label that several devices share is refused. */
export async function deviceId(clients: Clients, named: string): Promise<string> {
  if (isUuid(named)) return named.toLowerCase();
  return oneByLabel(await allDevices(clients), named).id;
}

/** The one device of these that a person names by id or label. */
export function deviceAmong(devices: readonly Device[], named: string): Device {
  const byId = isUuid(named) ? devices.find((device) => device.id === named.toLowerCase()) : undefined;
  return byId ?? oneByLabel(devices, named);
}

/** The one device with the label; capitals are looked at only if they are needed to tell devices apart. */
export function oneByLabel(devices: readonly Device[], label: string): Device {
  const exact = devices.filter((device) => device.label === label);
  const found =
    exact.length > 0 ? exact : devices.filter((device) => device.label.toLowerCase() === label.toLowerCase());
  if (found.length === 1) return found[0]!;
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

/** Labels of devices by id, for lists. Empty if the caller may not list devices: then ids are shown. */
export async function deviceLabels(clients: Clients): Promise<Map<string, string>> {
  try {
    return new Map((await allDevices(clients)).map((device) => [device.id, device.label]));
  } catch {
    return new Map();
  }
}

/** The org's members, at most `limit`. */
export function listMembers(clients: Clients, limit: number) {
  return collect(limit, async (request) => {
    const answer = await clients.orgs.listMembers(request);
    return { items: answer.members, nextPageToken: answer.nextPageToken };
  });
}

/** The id of the member whom a person names by id or email address. */
export async function memberId(clients: Clients, named: string): Promise<string> {
  if (isUuid(named)) return named.toLowerCase();
  const { items } = await listMembers(clients, lookupItemsMax);
  const found = items.find((member) => member.email === named.toLowerCase());
  if (found) return found.userId;
  throw new Failure(
    exitCodes.notFound,
    `no member has the address "${named}"`,
    "`pinion orgs members` shows who there is",
  );
}

/** Refuses what cannot be a run's id before it is sent: only whole ids name runs. */
export function runId(text: string): string {
  if (isUuid(text)) return text.toLowerCase();
  throw new Failure(
    exitCodes.usage,
    `"${text}" is no run id`,
    "a run is named by its whole id; `pinion runs list` shows them, `pinion watchers trigger` prints a new one",
  );
}
