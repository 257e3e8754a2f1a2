import { monitorEventLoopDelay } from "node:perf_hooks";
import { Counter, Gauge, Histogram, Registry } from "prom-client";

/**
 * What a replica counts of itself, in a registry of its own: made once, handed down, never global. Labels have few and
 * known values; a tenant, a device or a run is never among them, so that the number of series does not grow with use.
 * docs/operations.md says what each is for.
 */
export type Metrics = {
  /** Told of each batch: how many items it took, and for how long. Bind it to a kind once, not for every batch. */
  batch(kind: BatchKind): (size: number, ms: number) => void;
  /** An assignment was queued on its device's stream, so long after it could have been. */
  pushed(dueForMs: number): void;
  /** A completion was acknowledged, so long after it arrived. */
  acknowledged(ms: number): void;
  /** Slots became runs. */
  recorded(status: "pending" | "skipped", skipReason: string | null): void;
  /** A run ended, or went back to pending. */
  settled(status: string): void;
  /** A run ended with reasons for people to look. */
  attention(reasons: readonly string[]): void;
  /** An attempt was taken away from a device that lost it. */
  reaped(rule: string): void;
  /** A device's stream ended. */
  streamEnded(cause: string): void;
  /** A unary call was answered. */
  called(rpc: string, code: string): void;
  /** A connection or a request of a peer was cut or refused at the port. */
  peerCut(reason: string): void;
  /** A try to send something to a destination ended. */
  delivered(outcome: string): void;
  /** An error that nothing had caught was taken by the last line of defence. */
  uncaught(origin: string): void;
  /** Adds what is read when somebody asks. */
  observe(sources: MetricSources): void;
  /** The text of the exposition format. */
  text(): Promise<string>;
  readonly contentType: string;
  /** Names and help of all metrics, for documentation and tests. */
  describe(): { name: string; help: string; type: string }[];
  close(): void;
};

/** What is only looked at on a scrape. */
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
  /** Of the whole database; undefined while it cannot be had. */
  database(): Promise<DatabaseNumbers | undefined>;
};

/** What all replicas share, as the database says it. */
export type DatabaseNumbers = {
  activeRuns: Record<(typeof activeStates)[number], number>;
  /** Age of the longest due pending run whose device is connected, is away, or is none; 0 without one. */
  oldestPendingMs: Record<(typeof pendingPlaces)[number], number>;
  /** The longest open transaction. */
  oldestTransactionMs: number;
  /** How many transactions the oldest snapshot is behind. */
  oldestSnapshotAge: number;
};

export const activeStates = ["pending", "claimed", "running"] as const;
export const pendingPlaces = ["connected", "away", "none"] as const;
export const batchKinds = ["claims", "acceptances", "completions", "settlements", "beats", "rings"] as const;
export type BatchKind = (typeof batchKinds)[number];

const endedStatuses = [
  "completed",
  "failed",
  "timeout",
  "cancelled",
  "skipped",
  "retried",
  "deferred",
  "withdrawn",
];
const skipReasons = ["overlap", "cooldown", "missed", "offline_expired", "no_executor", "limit", "budget"];
/** AttentionReason in lower case. */
export const attentionReasons = [
  ...["permission_denied", "refusal", "answer_cut", "max_turns", "max_tokens", "budget", "schema"],
  ...["question_expired", "not_enforced", "session_gone", "no_answer"],
];
const reapRules = [
  ...["stream_broken", "silent", "never_beat", "never_accepted", "overdue", "cancelled"],
  // By the session itself: two heartbeats did not list it, or two pushes were not answered.
  ...["not_listed", "not_answered"],
];
const streamEndCauses = [
  ...["no_hello", "bad_message", "out_of_order", "not_opened", "gone_while_opening", "silent", "replaced"],
  ...["revoked", "drained", "device_left", "stream_failed", "stream_broken", "flood", "slow_reader"],
];

export const cutReasons = [
  // Connections: too many strangers, too many of one address, without a request, resting.
  ...(["crowded", "address_crowded", "no_request", "rests"] as const),
  // Requests: a stranger's that is not whole, a known one's, bytes of either, too many without a token.
  ...(["slow_stranger", "slow_body", "stranger_bytes", "body_bytes", "too_many_requests"] as const),
];
export type CutReason = (typeof cutReasons)[number];

const deliveryOutcomes = ["delivered", "failed", "dead"];

/** Where they arrive: at the call of a handler, at an event's listener, at a promise that nobody waits for, at the process. */
export const uncaughtOrigins = ["handler", "callback", "rejection", "process"] as const;
export type UncaughtOrigin = (typeof uncaughtOrigins)[number];

/** From a millisecond, which is what a push takes, to the minute after which somebody should look. */
const latencyBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const sizeBuckets = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
/** A finer grain costs more than it tells. */
const loopResolutionMs = 20;

export function createMetrics(build: { version: string }): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const histogram = (name: string, help: string, buckets: number[], labelNames: string[] = []) =>
    new Histogram({ name, help, buckets, labelNames, registers });
  const counter = (name: string, help: string, labelNames: string[] = []) =>
    new Counter({ name, help, labelNames, registers });
  /** A counter whose series are all there from the start: an alert on its increase sees the first one, too. */
  const counterOf = (name: string, help: string, label: string, values: readonly string[]) => {
    const made = counter(name, help, [label]);
    const series = new Map([...values, "other"].map((value) => [value, made.labels(value)]));
    for (const one of series.values()) one.inc(0);
    return (value: string) => (series.get(value) ?? series.get("other"))!.inc();
  };

  const dueToFrame = histogram(
    "pinion_due_to_frame_seconds",
    "From the moment a run was due and its device had a free slot until its assignment was queued on the stream",
    latencyBuckets,
  );
  const completeToAck = histogram(
    "pinion_complete_to_ack_seconds",
    "From the arrival of a completion until its acknowledgement was queued, the commit included",
    latencyBuckets,
  );
  const batchSize = histogram("pinion_batch_size", "Items in one batch", sizeBuckets, ["kind"]);
  const batchTime = histogram("pinion_batch_seconds", "How long one batch took", latencyBuckets, ["kind"]);
  const created = counter("pinion_runs_created_total", "Runs that were materialized or asked for");
  const skipped = counterOf(
    "pinion_runs_skipped_total",
    "Slots that became a skipped run; `missed` are those of a downtime",
    "reason",
    skipReasons,
  );
  const ended = counterOf(
    "pinion_runs_settled_total",
    "Runs that ended, and attempts that were taken back (retried, withdrawn)",
    "status",
    endedStatuses,
  );
  const attention = counterOf(
    "pinion_runs_attention_total",
    "Reasons for people to look, of runs that ended",
    "reason",
    attentionReasons,
  );
  const reaps = counterOf(
    "pinion_reaps_total",
    "Attempts that were taken away from devices that lost them",
    "rule",
    reapRules,
  );
  const streamEnds = counterOf(
    "pinion_stream_ends_total",
    "Device streams that ended",
    "cause",
    streamEndCauses,
  );
  const peerCuts = counterOf(
    "pinion_peer_cuts_total",
    "Connections and requests that were cut or refused at the port, for its own sake or for others'",
    "reason",
    cutReasons,
  );
  const tries = counterOf(
    "pinion_deliveries_total",
    "Tries to send something to a destination, by how they ended: delivered, failed (tried again), dead (given up)",
    "outcome",
    deliveryOutcomes,
  );
  const uncaught = counterOf(
    "pinion_uncaught_errors_total",
    "Errors that nothing had caught, by where they arrived; each ended one request or operation and is a mistake of ours",
    "origin",
    uncaughtOrigins,
  );
  const calls = counter("pinion_rpcs_total", "Unary calls by rpc and status", ["rpc", "code"]);
  new Gauge({
    name: "pinion_build_info",
    help: "1; the labels say what runs",
    labelNames: ["version", "node"],
    registers,
  }).set({ version: build.version, node: process.version }, 1);
  const stopWatching = watchProcess(registers);

  return {
    batch(kind) {
      const [sizes, times] = [batchSize.labels(kind), batchTime.labels(kind)];
      return (size, ms) => {
        sizes.observe(size);
        times.observe(ms / 1000);
      };
    },
    pushed: (dueForMs) => dueToFrame.observe(Math.max(0, dueForMs) / 1000),
    acknowledged: (ms) => completeToAck.observe(ms / 1000),
    recorded(status, skipReason) {
      if (status === "pending") created.inc();
      else skipped(skipReason ?? "other");
    },
    settled(status) {
      ended(status);
      // A start deadline is the one reason by which a run that was pending is skipped.
      if (status === "skipped") skipped("offline_expired");
    },
    attention(reasons) {
      for (const reason of reasons) attention(reason);
    },
    reaped: reaps,
    streamEnded: streamEnds,
    called: (rpc, code) => calls.inc({ rpc, code }),
    uncaught,
    delivered: tries,
    peerCut: peerCuts,
    observe: (sources) => observe(registers, sources),
    text: () => registry.metrics(),
    contentType: registry.contentType,
    describe: () =>
      registry.getMetricsAsArray().map((metric) => {
        const { name, help, type } = metric as unknown as { name: string; help: string; type: unknown };
        return { name, help, type: kindOf(metric, type) };
      }),
    close() {
      stopWatching();
      registry.clear();
    },
  };
}

function kindOf(metric: unknown, type: unknown): string {
  if (typeof type === "string") return type;
  if (metric instanceof Counter) return "counter";
  return metric instanceof Histogram ? "histogram" : "gauge";
}

/** Gauges that are filled on a scrape. */
function observe(registers: Registry[], sources: MetricSources): void {
  const gauge = (
    name: string,
    help: string,
    read: (gauge: Gauge) => void | Promise<void>,
    labelNames: string[] = [],
  ) =>
    new Gauge({
      name,
      help,
      labelNames,
      registers,
      collect() {
        return read(this);
      },
    });
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
  // Numbers that cannot be had are left out: the last ones would look as if all was well.
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
        // Without labels, a reset would say 0.
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

/** The process: its event loop, memory and CPU. Answers what ends the watching. */
function watchProcess(registers: Registry[]): () => void {
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
