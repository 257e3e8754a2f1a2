import type { Agent, AgentPlatform } from "#gen/pinion/v1/agent_pb.js";
import type { Destination } from "#gen/pinion/v1/destination_pb.js";
import type { Device } from "#gen/pinion/v1/fleet_pb.js";
import type { Hook } from "#gen/pinion/v1/hook_pb.js";
import type { Watcher } from "#gen/pinion/v1/watcher_pb.js";
import type { Clients } from "../context.ts";
import { exitCodes, Failure } from "../failures.ts";
import { collect } from "../print/paging.ts";

/** The org's objects by the file's names. */
export type OrgState = {
  agents: ReadonlyMap<string, Agent>;
  platforms: ReadonlyMap<string, AgentPlatform>;
  watchers: ReadonlyMap<string, Watcher>;
  devices: readonly Device[];
  destinations: ReadonlyMap<string, Destination>;
  hooks: ReadonlyMap<string, Hook>;
};

/** Maximum of objects per kind; a larger org needs more than one file. */
const itemsMax = 100_000;

/**
 * Reads the whole org. The reads are not one snapshot: a later change is noticed by its version at
 * the write.
 */
export async function readState(clients: Clients, options: { signal: AbortSignal }): Promise<OrgState> {
  const [agents, platforms, watchers, devices, destinations, hooks] = await Promise.all([
    all("agents", async (page) => {
      const answer = await clients.agents.listAgents(page, options);
      return { items: answer.agents, nextPageToken: answer.nextPageToken };
    }),
    all("platforms", async (page) => {
      const answer = await clients.agents.listPlatforms(page, options);
      return { items: answer.platforms, nextPageToken: answer.nextPageToken };
    }),
    all("watchers", async (page) => {
      const answer = await clients.watchers.listWatchers(page, options);
      return { items: answer.watchers, nextPageToken: answer.nextPageToken };
    }),
    all("devices", async (page) => {
      const answer = await clients.fleet.listDevices(page, options);
      return { items: answer.devices, nextPageToken: answer.nextPageToken };
    }),
    all("destinations", async (page) => {
      const answer = await clients.destinations.listDestinations(page, options);
      return { items: answer.destinations, nextPageToken: answer.nextPageToken };
    }),
    all("hooks", async (page) => {
      const answer = await clients.hooks.listHooks(page, options);
      return { items: answer.hooks, nextPageToken: answer.nextPageToken };
    }),
  ]);
  return {
    agents: new Map(agents.map((agent) => [agent.id, agent])),
    platforms: new Map(platforms.map((platform) => [platform.stableId, platform])),
    watchers: new Map(watchers.map((watcher) => [watcher.slug, watcher])),
    devices,
    destinations: new Map(destinations.map((destination) => [destination.slug, destination])),
    hooks: new Map(hooks.map((hook) => [hook.slug, hook])),
  };
}

async function all<Item>(nouns: string, read: Parameters<typeof collect<Item>>[1]): Promise<Item[]> {
  const { items, hasMore } = await collect(itemsMax, read);
  if (hasMore) throw new Failure(exitCodes.failed, `the org has more than ${itemsMax} ${nouns}`);
  return items;
}
