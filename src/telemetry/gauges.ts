import { monitorEventLoopDelay } from "node:perf_hooks";
import { Counter, Gauge, type Registry } from "prom-client";

/** Numbers that are read on each scrape. */
export type MetricSources = {
  isServing(): boolean;
  isBusUp(): boolean;
  clockDoubtMs(): number;
  hub(): { sessions: number; attempts: number };
  crowd(): {
    connections: { known: number; stranger: number };
    bytes: { known: number; stranger: number };
  };
  pools: Record<"work" | "requests", () => { open: number; idle: number; waiting: number }>;
  /** Numbers of the whole database; undefined while the database does not answer. */
  database(): Promise<DatabaseNumbers | undefined>;
};

/** Numbers from the database, the same on every replica. */
export type DatabaseNumbers = {
  activeRuns: Record<(typeof activeStates)[number], number>;
  /**
   * Milliseconds since the due time of the longest due pending run: with its device connected, with
   * its device away, and of an unpinned run; 0 without such a run.
   */
  oldestPendingMs: Record<(typeof pendingPlaces)[number], number>;
  /** Age of the longest open transaction. */
  oldestTransactionMs: number;
  /** Number of transactions since the oldest snapshot. */
  oldestSnapshotAge: number;
};

const activeStates = ["pending", "claimed", "running"] as const;
const pendingPlaces = ["connected", "away", "none"] as const;
/** A shorter interval costs more than its numbers are worth. */
const loopResolutionMs = 20;

export type Registers = Registry[];

/** Gauges that each scrape fills. */
export function observe(registers: Registers, sources: MetricSources): void {
  const gauge = gaugeIn(registers);
  observeReplica(gauge, sources);
  observePools(gauge, sources);
  observeDatabase(gauge, sources);
}

type MakeGauge = (
  name: string,
  help: string,
  read: (gauge: Gauge) => void | Promise<void>,
  labelNames?: string[],
) => void;

function gaugeIn(registers: Registers): MakeGauge {
  return (name, help, read, labelNames = []) => {
    new Gauge({
      name,
      help,
      labelNames,
      registers,
      collect() {
        return read(this);
      },
    });
  };
}

function observeReplica(gauge: MakeGauge, sources: MetricSources): void {
  gauge("pinion_serving", "1 while this replica takes work: not draining, and with a database", (g) =>
    g.set(sources.isServing() ? 1 : 0),
  );
  gauge("pinion_bus_up", "1 while this replica hears of the others' commits", (g) =>
    g.set(sources.isBusUp() ? 1 : 0),
  );
  gauge(
    "pinion_database_clock_doubt_seconds",
    "By how much the database's clock is ahead of what this replica's clocks say, while that is in doubt; else 0",
    (g) => g.set(sources.clockDoubtMs() / 1000),
  );
  gauge("pinion_devices_connected", "Devices whose stream is at this replica", (g) =>
    g.set(sources.hub().sessions),
  );
  gauge(
    "pinion_connections",
    "Connections of this replica's port, by whether a good token has come over them",
    (g) => {
      for (const [peer, count] of Object.entries(sources.crowd().connections)) g.set({ peer }, count);
    },
    ["peer"],
  );
  gauge(
    "pinion_body_bytes",
    "Bytes of requests that are held in memory",
    (g) => {
      for (const [peer, bytes] of Object.entries(sources.crowd().bytes)) g.set({ peer }, bytes);
    },
    ["peer"],
  );
  gauge("pinion_attempts_out", "Attempts that are out at devices of this replica", (g) =>
    g.set(sources.hub().attempts),
  );
}

function observePools(gauge: MakeGauge, sources: MetricSources): void {
  gauge(
    "pinion_database_connections",
    "Database connections of this replica that are in use",
    (g) => {
      for (const [pool, stats] of Object.entries(sources.pools)) {
        const { open, idle } = stats();
        g.set({ pool, state: "used" }, open - idle);
        g.set({ pool, state: "idle" }, idle);
      }
    },
    ["pool", "state"],
  );
  gauge(
    "pinion_database_waiting",
    "Callers that wait for a free database connection",
    (g) => {
      for (const [pool, stats] of Object.entries(sources.pools)) g.set({ pool }, stats().waiting);
    },
    ["pool"],
  );
  gauge("pinion_database_up", "1 if the database answered the last question for its numbers", async (g) =>
    g.set((await sources.database()) ? 1 : 0),
  );
}

/** Numbers of the whole database, the same on every replica. */
function observeDatabase(gauge: MakeGauge, sources: MetricSources): void {
  // Numbers that could not be read are left out, because old numbers would hide the failure.
  const ofDatabase = (
    name: string,
    help: string,
    set: (gauge: Gauge, numbers: DatabaseNumbers) => void,
    labelNames: string[] = [],
  ) =>
    gauge(
      name,
      help,
      async (g) => {
        const numbers = await sources.database();
        // Without labels, a reset sets the gauge to 0.
        if (labelNames.length > 0) g.reset();
        else g.remove();
        if (numbers) set(g, numbers);
      },
      labelNames,
    );
  ofDatabase(
    "pinion_runs_active",
    "Runs that have not ended, in the whole database",
    (g, { activeRuns }) => {
      for (const state of activeStates) g.set({ state }, activeRuns[state]);
    },
    ["state"],
  );
  ofDatabase(
    "pinion_run_pending_oldest_seconds",
    "For how long the oldest pending run has been due, by whether its device is connected, away, or none is named",
    (g, { oldestPendingMs }) => {
      for (const device of pendingPlaces) g.set({ device }, oldestPendingMs[device] / 1000);
    },
    ["device"],
  );
  ofDatabase(
    "pinion_database_transaction_oldest_seconds",
    "Age of the oldest open transaction in the database",
    (g, numbers) => g.set(numbers.oldestTransactionMs / 1000),
  );
  ofDatabase(
    "pinion_database_snapshot_oldest_transactions",
    "How many transactions the oldest snapshot is behind; old ones keep dead rows from being removed",
    (g, numbers) => g.set(numbers.oldestSnapshotAge),
  );
}

/**
 * Gauges of the process: event loop, memory and CPU. Returns a function that ends the measurement.
 */
export function watchProcess(registers: Registry[]): () => void {
  const delay = monitorEventLoopDelay({ resolution: loopResolutionMs });
  delay.enable();
  new Gauge({
    name: "pinion_event_loop_lag_seconds",
    help: "How late the event loop was since the last scrape: the 50th and 99th percentile, and the worst",
    labelNames: ["quantile"],
    registers,
    collect() {
      const lag = (ns: number) => (Number.isFinite(ns) ? Math.max(0, ns / 1e9 - loopResolutionMs / 1000) : 0);
      this.set({ quantile: "0.5" }, lag(delay.percentile(50)));
      this.set({ quantile: "0.99" }, lag(delay.percentile(99)));
      this.set({ quantile: "1" }, lag(delay.max));
      delay.reset();
    },
  });
  new Gauge({
    name: "process_resident_memory_bytes",
    help: "Memory of the process",
    registers,
    collect() {
      this.set(process.memoryUsage.rss());
    },
  });
  let counted = 0;
  new Counter({
    name: "process_cpu_seconds_total",
    help: "CPU time of the process",
    registers,
    collect() {
      const { user, system } = process.cpuUsage();
      const seconds = (user + system) / 1e6;
      this.inc(Math.max(0, seconds - counted));
      counted = seconds;
    },
  });
  new Gauge({
    name: "process_start_time_seconds",
    help: "When the process started, in seconds since 1970",
    registers,
  }).set(Math.round(performance.timeOrigin / 1000));
  return () => delay.disable();
}
