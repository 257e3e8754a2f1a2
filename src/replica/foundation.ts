/** What every builder of a replica is handed: its settings, its name, and where it writes what it does. */
import type { ReplicaConfig } from "../config.ts";
import type { DatabaseClock } from "../database-clock.ts";
import type { Logger } from "../log.ts";
import type { Metrics } from "../metrics.ts";
import type { LastLine } from "../server/http/last-line.ts";
import type { Telemetry } from "../server/telemetry.ts";
import type { Tracer } from "../tracing.ts";

export type Foundation = {
  config: ReplicaConfig;
  replicaId: string;
  log: Logger;
  metrics: Metrics;
  tracer: Tracer | undefined;
  telemetry: Telemetry;
  /** The database's, as the statements of this replica tell it. */
  clock: DatabaseClock;
  lastLine: LastLine;
  /** What a builder opens is deferred here, and closed in the opposite order, also when the start fails half-way. */
  opened: AsyncDisposableStack;
};
