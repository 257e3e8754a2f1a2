import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { type MetricSources, observe, type Registers, watchProcess } from "./gauges.ts";

/**
 * The metrics of a replica, in a registry of their own, which is made once and passed on. Labels
 * have few and known values, never a tenant, a device or a run, so that the number of series does
 * not grow with use. docs/operations.md has the purpose of each metric.
 */
export type Metrics = {
  /**
   * Reports a batch: the number of its items, and its milliseconds. Callers bind the function to
   * their kind once.
   */
  batch(kind: BatchKind): (size: number, ms: number) => void;
  /**
   * An assignment was queued on its device's stream: the milliseconds since the run could have been
   * pushed.
   */
  pushed(dueForMs: number): void;
  /** A completion was acknowledged: the milliseconds since its arrival. */
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
  /** An uncaught error reached the last handler (server/http/port/last-line.ts). */
  uncaught(origin: string): void;
  /** Adds gauges that are read on each scrape. */
  observe(sources: MetricSources): void;
  /** The text of the exposition format. */
  text(): Promise<string>;
  readonly contentType: string;
  /** Names and help of all metrics, for documentation and tests. */
  describe(): { name: string; help: string; type: string }[];
  close(): void;
};
const batchKinds = ["claims", "acceptances", "completions", "settlements", "beats", "rings"] as const;
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
  // Rules of the session: two heartbeats did not list the attempt, or two pushes were not answered.
  ...["not_listed", "not_answered"],
];
const streamEndCauses = [
  ...["no_hello", "bad_message", "out_of_order", "not_opened", "gone_while_opening", "silent", "replaced"],
  ...["revoked", "drained", "device_left", "stream_failed", "stream_broken", "flood", "slow_reader"],
];

const cutReasons = [
  // Connections: too many strangers, too many of one address, without a request, resting.
  ...(["crowded", "address_crowded", "no_request", "rests"] as const),
  // Requests: a stranger's that is not whole, a known one's, bytes of either, too many without a
  // token.
  ...(["slow_stranger", "slow_body", "stranger_bytes", "body_bytes", "too_many_requests"] as const),
];
export type CutReason = (typeof cutReasons)[number];

const deliveryOutcomes = ["delivered", "failed", "dead"];

/**
 * The places where uncaught errors arrive: the call of a handler, a listener of an event, a promise
 * without a handler, the process.
 */
const uncaughtOrigins = ["handler", "callback", "rejection", "process"] as const;
export type UncaughtOrigin = (typeof uncaughtOrigins)[number];

/** From 1 ms, the time of a push, to 60 s, after which a person should look. */
const latencyBuckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
const sizeBuckets = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];

function histogramIn(registers: Registers) {
  return (name: string, help: string, buckets: number[], labelNames: string[] = []) =>
    new Histogram({ name, help, buckets, labelNames, registers });
}

/**
 * A counter whose series exist from the start, so that an alert on an increase notices the first
 * event.
 */
function counterOf(
  registers: Registers,
  name: string,
  help: string,
  { label, values }: { label: string; values: readonly string[] },
): (value: string) => void {
  const made = new Counter({ name, help, labelNames: [label], registers });
  const other = made.labels("other");
  const series = new Map(values.map((value) => [value, made.labels(value)]));
  for (const one of [...series.values(), other]) one.inc(0);
  return (value) => (series.get(value) ?? other).inc();
}

/** Counters of runs and attempts. */
function createRunCounters(registers: Registers) {
  return {
    created: new Counter({
      name: "pinion_runs_created_total",
      help: "Runs that were materialized or asked for",
      registers,
    }),
    skipped: counterOf(
      registers,
      "pinion_runs_skipped_total",
      "Slots that became a skipped run; `missed` are those of a downtime",
      { label: "reason", values: skipReasons },
    ),
    ended: counterOf(
      registers,
      "pinion_runs_settled_total",
      "Runs that ended, and attempts that were taken back (retried, withdrawn)",
      { label: "status", values: endedStatuses },
    ),
    attention: counterOf(
      registers,
      "pinion_runs_attention_total",
      "Reasons for people to look, of runs that ended",
      { label: "reason", values: attentionReasons },
    ),
    reaps: counterOf(
      registers,
      "pinion_reaps_total",
      "Attempts that were taken away from devices that lost them",
      { label: "rule", values: reapRules },
    ),
  };
}

/** Counters of streams, calls and messages to other systems. */
function createTrafficCounters(registers: Registers) {
  return {
    streamEnds: counterOf(registers, "pinion_stream_ends_total", "Device streams that ended", {
      label: "cause",
      values: streamEndCauses,
    }),
    peerCuts: counterOf(
      registers,
      "pinion_peer_cuts_total",
      "Connections and requests that were cut or refused at the port, for its own sake or for others'",
      { label: "reason", values: cutReasons },
    ),
    tries: counterOf(
      registers,
      "pinion_deliveries_total",
      "Tries to send something to a destination, by how they ended: delivered, failed (tried again), dead (given up)",
      { label: "outcome", values: deliveryOutcomes },
    ),
    uncaught: counterOf(
      registers,
      "pinion_uncaught_errors_total",
      "Errors that nothing had caught, by where they arrived; each ended one request or operation and is a mistake of ours",
      { label: "origin", values: uncaughtOrigins },
    ),
    calls: new Counter({
      name: "pinion_rpcs_total",
      help: "Unary calls by rpc and status",
      labelNames: ["rpc", "code"],
      registers,
    }),
  };
}

function createTimes(registers: Registers) {
  const histogram = histogramIn(registers);
  return {
    dueToFrame: histogram(
      "pinion_due_to_frame_seconds",
      "From the moment a run was due and its device had a free slot until its assignment was queued on the stream",
      latencyBuckets,
    ),
    completeToAck: histogram(
      "pinion_complete_to_ack_seconds",
      "From the arrival of a completion until its acknowledgement was queued, the commit included",
      latencyBuckets,
    ),
    batchSize: histogram("pinion_batch_size", "Items in one batch", sizeBuckets, ["kind"]),
    batchTime: histogram("pinion_batch_seconds", "How long one batch took", latencyBuckets, ["kind"]),
  };
}

export function createMetrics(build: { version: string }): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const { dueToFrame, completeToAck, batchSize, batchTime } = createTimes(registers);
  const runs = createRunCounters(registers);
  const traffic = createTrafficCounters(registers);
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
      if (status === "pending") runs.created.inc();
      else runs.skipped(skipReason ?? "other");
    },
    settled(status) {
      runs.ended(status);
      // A start deadline is the one reason by which a run that was pending is skipped.
      if (status === "skipped") runs.skipped("offline_expired");
    },
    attention(reasons) {
      for (const reason of reasons) runs.attention(reason);
    },
    reaped: runs.reaps,
    streamEnded: traffic.streamEnds,
    called: (rpc, code) => traffic.calls.inc({ rpc, code }),
    uncaught: traffic.uncaught,
    delivered: traffic.tries,
    peerCut: traffic.peerCuts,
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
