/**
 * Lines that speak and take messages in, on a replica that does not have the platform's instance:
 * for requests of platforms to our port, and for messages of destinations.
 */
import { createLookups } from "../../batches/lookups.ts";
import * as platforms from "../../store/agents/platforms.ts";
import type { Db } from "../../store/pg/database.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Ear, Line } from "./lines/line.ts";
import type { Lines } from "./lines/lines.ts";
import { openSecrets, type SecretSources } from "./secrets.ts";
import type { StartablePlatform } from "./starter.ts";

type Named = { orgId: string; stableId: string };

export type Speakers = {
  /**
   * The line of a running platform; undefined if the org has no such platform or it does not run.
   */
  find(platform: Named): Promise<Line | undefined>;
  forget(platform: Named): void;
  close(): Promise<void>;
};

/** Open lines; the one unused for the longest time is closed first. */
const linesMax = 200;

export function createSpeakers(
  deps: SecretSources & {
    db: Db;
    log: Logger;
    lines: Lines;
    earOf(platform: StartablePlatform): Ear;
  },
): Speakers {
  const open = new Map<string, { epoch: number; line: Promise<Line> }>();
  const findRow = createLookups((named: readonly Named[]) => platforms.findEach(deps.db, named), "messages");

  function drop(key: string): void {
    const one = open.get(key);
    open.delete(key);
    one?.line
      .then((line) => line.close())
      .catch((error: unknown) => deps.log.debug({ err: error }, "a line was not closed in order"));
  }

  return {
    async find({ orgId, stableId }) {
      const key = `${orgId} ${stableId}`;
      const row = await findRow({ orgId, stableId });
      if (row?.status !== "running") {
        drop(key);
        return undefined;
      }
      if (open.get(key)?.epoch !== row.epoch) drop(key);
      const known = open.get(key);
      // Moved to the end of the map.
      open.delete(key);
      if (known) {
        open.set(key, known);
        return known.line;
      }
      const [oldest] = open.keys();
      if (oldest !== undefined && open.size >= linesMax) drop(oldest);
      const secrets = openSecrets(deps, row);
      const { agent_id: agentId, kind, config, epoch } = row;
      const platform = { orgId, stableId, agentId, kind, config, secrets, epoch };
      const line = deps.lines.open(platform, { listens: false, ear: deps.earOf(platform) });
      open.set(key, { epoch, line });
      line.catch(() => {
        if (open.get(key)?.line === line) open.delete(key);
      });
      return line;
    },
    forget: ({ orgId, stableId }) => drop(`${orgId} ${stableId}`),
    async close() {
      for (const key of [...open.keys()]) drop(key);
    },
  };
}
