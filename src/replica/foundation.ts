/** Input of every builder of a replica: settings, id, log and telemetry. */
import { build } from "../build.ts";
import type { ReplicaConfig } from "../config.ts";
import { createLastLine, type LastLine } from "../server/http/port/last-line.ts";
import { createTelemetry, type Telemetry } from "../server/telemetry.ts";
import type { Logger } from "../telemetry/log.ts";
import { createMetrics, type Metrics } from "../telemetry/metrics.ts";
import { openTracer, type Tracer } from "../telemetry/tracing.ts";
import { DatabaseClock } from "../time/database-clock.ts";

export type Foundation = {
  config: ReplicaConfig;
  replicaId: string;
  log: Logger;
  metrics: Metrics;
  tracer: Tracer | undefined;
  telemetry: Telemetry;
  /** The database's clock, as read by this replica's statements. */
  clock: DatabaseClock;
  lastLine: LastLine;
  /**
   * Builders defer the closing of opened parts here; closing runs in reverse order, also after a
   * failed start.
   */
  opened: AsyncDisposableStack;
};

/** Opens telemetry and the other common parts. */
export async function layFoundation(
  own: Pick<Foundation, "config" | "replicaId" | "log" | "opened">,
): Promise<Foundation> {
  const { config, replicaId, log, opened } = own;
  const metrics = createMetrics({ version: build.version });
  opened.defer(() => metrics.close());
  const named = { service: "pinion", version: build.version, instanceId: replicaId, log };
  const tracer = config.tracing ? await openTracer(config.tracing, named) : undefined;
  opened.defer(() => tracer?.close());
  const lastLine = createLastLine({ log, onUncaught: metrics.uncaught });
  const telemetry = createTelemetry({ metrics, tracer });
  return { ...own, metrics, tracer, telemetry, lastLine, clock: new DatabaseClock() };
}
