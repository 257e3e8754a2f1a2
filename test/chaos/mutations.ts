import type { ChaosOptions } from "./chaos.ts";
import { trafficMutations } from "./mutations-traffic.ts";
import type { FaultKind } from "./plan.ts";

/**
 * Deliberate violations of promises, in a copy of the sources or in the rig, as a check that the
 * checker notices. The product has no code for them.
 */

/** A text that occurs once in a source file, and its replacement. */
export type Replacement = { file: string; from: string; to: string };

export type Mutation = {
  name: string;
  replacements: Replacement[];
  /** Breaks the devices, not the replicas. */
  dropsOutbox?: boolean;
  /** Devices hand their results over by unary calls rather than wait for a stream. */
  prefersUnary?: boolean;
  /** The checker reports one of these rules. */
  breaks: string[];
  /** The options of the rig that expose the violation. */
  rig: Pick<ChaosOptions, "devices" | "replicas" | "hosts" | "lengthMs" | "gapMs" | "callsPerSecond"> &
    Partial<
      Pick<
        ChaosOptions,
        | "workers"
        | "every"
        | "workMsMax"
        | "trafficDevices"
        | "outageMsMax"
        | "settleMsMax"
        | "durationFactor"
      >
    > & {
      kinds: readonly FaultKind[];
    };
};

const small = { devices: 12, replicas: 2, hosts: 2, gapMs: 2_500, callsPerSecond: 6, settleMsMax: 20_000 };

export const mutations: readonly Mutation[] = [
  {
    name: "the claim looks at no pin",
    replacements: [
      {
        file: "src/store/work/runs/run-claims.ts",
        from: "and device_id = s.device_id and",
        to: "and",
      },
    ],
    breaks: ["nothing crosses a tenant or a device"],
    rig: { ...small, every: 5, lengthMs: 7_000, settleMsMax: 1_000, kinds: ["network_latency"] },
  },
  {
    name: "a completion is acknowledged before it is committed",
    replacements: [
      {
        file: "src/scheduler/endings/endings.ts",
        from: "const current = await transaction(db, (tx) => of.storeCurrent(tx, batch));",
        to: `const current = await new Promise<Stored>((answer) => {
        transaction(db, async (tx) => {
          const stored = await of.storeCurrent(tx, batch);
          answer(stored);
          await new Promise((later) => setTimeout(later, 400));
          return stored;
        }).catch(() => {});
      });`,
      },
    ],
    breaks: ["an acknowledgement is true"],
    rig: {
      ...small,
      every: 5,
      workMsMax: 500,
      lengthMs: 14_000,
      gapMs: 1_500,
      kinds: ["replica_kill", "postgres_restart"],
    },
  },
  {
    // The token, the device and the session of an attempt are each a fence: all three are gone.
    name: "settling looks at no fence of an attempt",
    replacements: [
      {
        file: "src/store/work/attempts/settlements.ts",
        from: "where org_id = i.org_id and id = i.run_id and attempt_token is not distinct from i.token",
        to: "where org_id = i.org_id and id = i.run_id",
      },
      {
        file: "src/store/work/attempts/settlements.ts",
        from: "and (i.reporter is null or device_id = i.reporter)",
        to: "",
      },
      {
        file: "src/store/work/attempts/attempt-rules.ts",
        from: "(i.epoch is null or (claimed_epoch",
        to: "(true or (claimed_epoch",
      },
      {
        file: "src/store/work/attempts/completions.ts",
        from: " and r.attempt_token = i.token and r.device_id = i.reporter",
        to: "",
      },
    ],
    prefersUnary: true,
    // A result of an earlier attempt also ends a run that waits for its next claim.
    breaks: ["an acknowledgement is true", "one window per completed run", "one current attempt per run"],
    // The run of a paused worker goes to another worker, and both report.
    rig: {
      ...small,
      devices: 4,
      workers: 8,
      every: 5,
      lengthMs: 30_000,
      gapMs: 4_000,
      kinds: ["host_pause", "network_blackhole"],
    },
  },
  {
    name: "the device loses its outbox",
    replacements: [],
    dropsOutbox: true,
    breaks: ["no result is lost"],
    rig: {
      ...small,
      every: 5,
      workMsMax: 500,
      lengthMs: 24_000,
      gapMs: 2_000,
      outageMsMax: 6_000,
      kinds: ["postgres_outage", "host_kill"],
    },
  },
  {
    name: "a slot that has a row is recorded again",
    replacements: [
      {
        file: "src/scheduler/slots/plan.ts",
        from: 'isNew: source === "scheduled" && (watcher.lastSlotAt === null || slot > watcher.lastSlotAt),',
        to: "isNew: true,",
      },
      // Two replicas that read the same watcher both plan its slot.
      {
        file: "src/store/work/watchers/schedules.ts",
        from: "\n    for no key update of w skip locked`;\n  const query",
        to: "`;\n  const query",
      },
      {
        file: "src/store/work/watchers/schedules.ts",
        // biome-ignore lint/suspicious/noTemplateCurlyInString: text of the source
        from: "${ahead(reach)} for no key update of w skip locked`",
        // biome-ignore lint/suspicious/noTemplateCurlyInString: text of the source
        to: "${ahead(reach)}`",
      },
      {
        file: "src/store/work/watchers/schedules.ts",
        from: "order by i.ord for no key update of w skip locked`",
        to: "order by i.ord`",
      },
    ],
    breaks: ["a slot is one row"],
    rig: { ...small, every: 5, lengthMs: 15_000, kinds: ["network_latency"] },
  },
  {
    name: "the schedule moves past a slot that it does not record",
    replacements: [
      {
        file: "src/scheduler/slots/plan.ts",
        from: "const latest = hasMore ? undefined : due.pop();",
        to: "const latest = hasMore ? undefined : due.pop();\n  due.length = 0;",
      },
    ],
    breaks: ["every slot once", "the schedule moves once per slot"],
    rig: { ...small, every: 5, lengthMs: 15_000, outageMsMax: 8_000, kinds: ["postgres_outage"] },
  },
  {
    name: "what is recorded ahead is pushed at once",
    replacements: [
      {
        file: "src/server/device/attempts/ahead.ts",
        from: "return dueMs <= this.#clock.now() + earlyMsMax;",
        to: "return true;",
      },
    ],
    breaks: ["never pushed before it is due"],
    rig: { ...small, every: 5, lengthMs: 15_000, kinds: ["network_latency"] },
  },
  {
    name: "nothing is reaped",
    replacements: [
      {
        file: "src/store/work/attempts/attempts.ts",
        from: "where s.rule is not null\n    order by r.org_id, r.id",
        to: "where s.rule is not null and false\n    order by r.org_id, r.id",
      },
    ],
    breaks: ["nothing stays out without an owner", "everything ends"],
    rig: { ...small, every: 5, lengthMs: 65_000, gapMs: 6_000, durationFactor: 6, kinds: ["host_pause"] },
  },
  {
    name: "the reaper gives no grace",
    replacements: [
      {
        file: "src/scheduler/endings/reaper.ts",
        from: "const isQuiet = isAway || now < quietUntil;",
        to: "const isQuiet = false;",
      },
      // The reaper starts as soon as the database is back, before the other replicas and devices
      // have written again.
      {
        file: "src/scheduler/loop.ts",
        from: "const failureDelayMsMax = 5_000;",
        to: "const failureDelayMsMax = 50;",
      },
    ],
    breaks: ["nothing is reaped within the grace"],
    rig: {
      ...small,
      every: 5,
      lengthMs: 40_000,
      outageMsMax: 12_000,
      gapMs: 11_000,
      kinds: ["postgres_outage"],
    },
  },
  {
    name: "a window keeps the beginning of its output",
    replacements: [
      {
        file: "src/store/work/attempts/settlements.ts",
        from: "case when h.window_id is not null then h.output end,",
        to: "case when h.window_id is not null then left(h.output, 40) end,",
      },
      {
        file: "src/store/work/attempts/completions.ts",
        from: "id, output, is_truncated, answer::jsonb",
        to: "id, left(output, 40), is_truncated, answer::jsonb",
      },
    ],
    breaks: ["an acknowledgement is true", "one window per completed run"],
    rig: {
      ...small,
      every: 5,
      workMsMax: 500,
      lengthMs: 7_000,
      settleMsMax: 2_000,
      kinds: ["network_latency"],
    },
  },
  {
    name: "the sweep asks for no work",
    replacements: [
      {
        file: "src/server/device/hub/sweep.ts",
        from: "      for (const session of part) if (waited.has(session.deviceId)) registry.expect(session, kind);\n",
        to: "",
      },
    ],
    breaks: ["late by at most the sweep"],
    rig: {
      ...small,
      every: 15,
      callsPerSecond: 2,
      workMsMax: 500,
      lengthMs: 45_000,
      gapMs: 1_000,
      durationFactor: 6,
      settleMsMax: 2_000,
      kinds: ["notifications_lost"],
    },
  },
  {
    name: "a late result is acknowledged and not kept",
    replacements: [
      {
        file: "src/scheduler/endings/endings.ts",
        from: "if (late.length === 0) return answers;",
        to: "if (late.length >= 0) return answers;",
      },
    ],
    breaks: ["a finished program's result is kept"],
    rig: {
      ...small,
      every: 5,
      workMsMax: 3_000,
      lengthMs: 35_000,
      gapMs: 8_000,
      settleMsMax: 30_000,
      kinds: ["partition_longer_than_ttl"],
    },
  },
  {
    name: "a full disk makes good results invalid",
    replacements: [
      {
        file: "src/store/pg/failures.ts",
        from: 'const finalClasses = new Set(["22", "23"]);',
        to: 'const finalClasses = new Set(["22", "23", "53"]);',
      },
    ],
    breaks: ["an acknowledgement is true", "a finished program's result is kept"],
    rig: {
      ...small,
      every: 5,
      workMsMax: 500,
      lengthMs: 25_000,
      durationFactor: 2,
      kinds: ["database_disk_full"],
    },
  },
  {
    name: "a wrong clock of the database is believed",
    replacements: [
      {
        file: "src/scheduler/slots/clock.ts",
        from: 'return departureMs + movedMs <= jumpMsMin ? "forward" : "in_doubt";',
        to: 'return "forward";',
      },
    ],
    breaks: ["a wrong clock decides nothing", "every slot once"],
    rig: {
      ...small,
      every: 5,
      workMsMax: 500,
      lengthMs: 20_000,
      settleMsMax: 5_000,
      kinds: ["database_clock"],
    },
  },
  {
    name: "runs asked for by a wrong clock keep their due time",
    replacements: [
      {
        file: "src/store/work/watchers/clock-jumps.ts",
        // biome-ignore lint/suspicious/noTemplateCurlyInString: the source's own text
        from: 'due_at = case when scheduled_for is null then ${notAhead("due_at")} else due_at end,',
        to: "",
      },
    ],
    breaks: ["late by at most the sweep", "everything ends"],
    rig: {
      ...small,
      callsPerSecond: 20,
      workMsMax: 500,
      lengthMs: 20_000,
      settleMsMax: 15_000,
      kinds: ["database_clock"],
    },
  },
  {
    name: "a result offered again brings no run",
    replacements: [
      {
        file: "src/server/device/reconcile/forgotten.ts",
        from: "if (!reoffer) return undefined;",
        to: "if (reoffer) return undefined;\n  if (!reoffer) return undefined;",
      },
    ],
    breaks: ["a finished program's result is kept"],
    rig: { ...small, every: 5, workMsMax: 500, lengthMs: 20_000, kinds: ["database_failover"] },
  },
  {
    name: "the device answers no forgotten run",
    replacements: [
      {
        file: "clients/ts/src/device/results/delivery.ts",
        from: "return own.length === 0 ? undefined : forgottenOf(own, assigned);",
        to: "return own.length >= 0 ? undefined : forgottenOf(own, assigned);",
      },
    ],
    breaks: ["a finished slot's program does not run again"],
    rig: { ...small, every: 5, workMsMax: 500, lengthMs: 45_000, gapMs: 8_000, kinds: ["database_failover"] },
  },
  {
    name: "an attempt that was taken away goes on",
    replacements: [
      {
        file: "src/server/device/reconcile/reconcile.ts",
        from: "verdicts: held.map((attempt) => judge(attempt, past.get(attempt.attemptToken))),",
        to: "verdicts: held.map(() => HeldVerdict.CONTINUE),",
      },
    ],
    breaks: ["a fenced attempt stays fenced"],
    rig: {
      ...small,
      every: 5,
      workMsMax: 20_000,
      lengthMs: 35_000,
      gapMs: 8_000,
      settleMsMax: 5_000,
      kinds: ["partition_longer_than_ttl"],
    },
  },
  {
    name: "a cancelled run goes on",
    replacements: [
      {
        file: "src/scheduler/endings/cancels.ts",
        from: 'return commit(db, options.doorbell, (tx) => cancelIn(tx, run, { ...options, mode: "ask" }));',
        to: 'return Promise.resolve(run.runId !== "");',
      },
    ],
    breaks: ["an answer is true"],
    rig: {
      ...small,
      every: 5,
      callsPerSecond: 20,
      // Work that goes on until the end: a run that completed after its cancellation proves
      // nothing.
      workMsMax: 60_000,
      lengthMs: 12_000,
      settleMsMax: 500,
      kinds: ["network_latency"],
    },
  },
  {
    name: "an attempt keeps the token of the attempt before",
    replacements: [
      {
        file: "src/store/work/runs/run-claims.ts",
        from: "attempt = r.attempt + 1, attempt_token = gen_random_uuid(),",
        to: "attempt = r.attempt + 1,\n        attempt_token = coalesce((r.past_attempts->-1->>'token')::uuid, gen_random_uuid()),",
      },
    ],
    breaks: ["one current attempt per run"],
    rig: {
      ...small,
      every: 5,
      lengthMs: 35_000,
      gapMs: 6_000,
      settleMsMax: 5_000,
      kinds: ["host_kill", "partition_longer_than_ttl"],
    },
  },
  ...trafficMutations,
];
