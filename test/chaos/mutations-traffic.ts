import type { FaultKind } from "./plan.ts";

const only = (kind: FaultKind): readonly FaultKind[] => [kind];

/** Broken promises of hooks, chains and destinations. */

const small = { devices: 8, replicas: 2, hosts: 2, gapMs: 2_500, callsPerSecond: 1, settleMsMax: 30_000 };
const often = { every: 10, workMsMax: 500, trafficDevices: 8 };

export const trafficMutations = [
  {
    name: "a delivery that comes again is a new one",
    replacements: [
      {
        file: "src/usecases/hook-deliveries.ts",
        from: "const { key } = incoming;",
        to: "const key = null as string | null;",
      },
    ],
    breaks: ["a hook's delivery starts one run"],
    rig: { ...small, ...often, lengthMs: 20_000, kinds: only("network_latency") },
  },
  {
    name: "the end of a run forgets its followers",
    replacements: [
      {
        file: "src/scheduler/starts/chains.ts",
        from: "  if (followed.length === 0) return [];\n",
        to: "  if (followed.length >= 0) return [];\n",
      },
    ],
    breaks: ["the end of a run starts each follower once"],
    rig: { ...small, ...often, lengthMs: 12_000, kinds: only("network_latency") },
  },
  {
    name: "a message that was refused counts as delivered",
    replacements: [
      {
        file: "src/scheduler/deliverer.ts",
        from: 'if (sent.outcome === "delivered") return',
        to: "if (sent.status > 0) return",
      },
    ],
    breaks: ["every end is told"],
    rig: { ...small, ...often, lengthMs: 25_000, gapMs: 4_000, kinds: only("receiver_errors") },
  },
  {
    name: "an end is told outside of its transaction",
    replacements: [
      {
        file: "src/scheduler/endings/run-endings.ts",
        from: "    settled.flatMap((run) => noticesOf(run, settlementOf(run)?.attention)),\n",
        to: "    settled.filter(() => Math.random() < 0.5).flatMap((run) => noticesOf(run, settlementOf(run)?.attention)),\n",
      },
    ],
    breaks: ["every end is told"],
    rig: { ...small, ...often, lengthMs: 12_000, kinds: only("network_latency") },
  },
  {
    name: "messages of a watcher overtake each other",
    replacements: [
      {
        file: "src/store/work/messages/delivery-claims.ts",
        from: `    \${heads},\n    due as (`,
        to: `    with recursive head as (select org_id, destination_id, lane, id, next_at, lease_until from delivery where state = 'pending'),\n    due as (`,
      },
      {
        file: "src/store/work/messages/delivery-claims.ts",
        from: "and o.lane = x.lane and o.state = 'pending' and o.seq < x.seq",
        to: "and o.lane = x.lane and false",
      },
    ],
    breaks: ["messages arrive in order"],
    rig: { ...small, ...often, every: 5, lengthMs: 35_000, gapMs: 6_000, kinds: only("receiver_errors") },
  },
];
