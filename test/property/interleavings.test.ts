/**
 * Two replicas perform all possible actions on a watcher's runs, up to three at once, on a real
 * database. Every answer, and the rows of the database, must match some order of the actions in the
 * model.
 *
 * PINION_TEST_SEED=<seed> repeats a run of this test.
 */
import fc from "fast-check";
import { expect, onTestFinished, test } from "vitest";
import { HeldAttemptState, HeldVerdict } from "#gen/pinion/v1/device_pb.js";
import { Refusal } from "../../src/errors.ts";
import { cancelRun } from "../../src/scheduler/endings/cancels.ts";
import { reapOnce } from "../../src/scheduler/endings/reaper.ts";
import { materializeOnce } from "../../src/scheduler/slots/materializer.ts";
import { retry, trigger } from "../../src/scheduler/starts/triggers.ts";
import { type Db, openDatabase } from "../../src/store/pg/database.ts";
import * as attempts from "../../src/store/work/attempts/attempts.ts";
import type * as runClaims from "../../src/store/work/runs/run-claims.ts";
import * as presence from "../../src/store/work/service/presence.ts";
import type { WatcherName } from "../../src/store/work/watchers/schedules.ts";
import { createLogger } from "../../src/telemetry/log.ts";
import { useDatabase } from "../support/database.ts";
import { isLong } from "../support/long.ts";
import {
  accept,
  ageRun,
  claim,
  type DeviceName,
  listRuns,
  openDevice,
  putSchedule,
  reapRules,
  reportOf,
  seedDevice,
  seedWatcher,
  sessionOf,
} from "../support/rows.ts";
import { noteDoorbell, policy, storeOnce } from "../support/surroundings.ts";
import { checkFor } from "../support/timed-property.ts";
import { applyTogether, type Command, newState, type State } from "./run-model.ts";

const database = useDatabase({ per: "file" });
const maxAttempts = 2;
/** New tries start within this time; the rest is skipped. */
const timeLimitMs = isLong ? 30_000 : 6_000;
const log = createLogger({ name: "test", level: "silent" });

type World = {
  replicas: Db[];
  device: DeviceName;
  watcher: WatcherName;
  known: runClaims.ClaimedRun[];
  /** Epochs so far. */
  epochs: number[];
  /** Slots made due so far. */
  slots: number;
  /** All possible states. */
  states: State[];
};

/** An action of one replica; undefined: the action has no target in this state. */
type Act = (world: World, db: Db) => Promise<Command> | undefined;
type Step = { name: string; acts: Act[] } | { name: string; alone: (world: World) => Promise<void> };

/** The latest item is chosen most often. */
const latest = <T>(items: readonly T[], pick: number): T | undefined =>
  items[items.length - 1 - (pick % Math.max(1, items.length))];

const named = (name: string, act: Act) => Object.assign(act, { [fc.toStringMethod]: () => name });

const heldVerdicts: Partial<Record<HeldVerdict, "continue" | "send_result" | "already_stored" | "abort">> = {
  [HeldVerdict.CONTINUE]: "continue",
  [HeldVerdict.SEND_RESULT]: "send_result",
  [HeldVerdict.ALREADY_STORED]: "already_stored",
  [HeldVerdict.ABORT]: "abort",
};

const pick = fc.nat({ max: 3 });

/**
 * Actions that advance a run are more frequent than actions that end it, or most lives would be
 * short.
 */
const act: fc.Arbitrary<Act> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.constant(
      named("trigger", async ({ watcher }, db) => {
        const { run, alreadyQueued } = await trigger(
          db,
          { ...watcher, actor: "pinion" },
          { doorbell: noteDoorbell() },
        );
        return { name: "trigger", answer: { run: run.id, alreadyQueued } };
      }),
    ),
  },
  {
    weight: 1,
    arbitrary: pick.map((at) =>
      named(`retry(${at})`, ({ device: { orgId }, states }, db) => {
        const ended = latest(
          states[0]!.ended.filter(({ id }) => id !== undefined),
          at,
        );
        if (!ended) return undefined;
        const asked = { orgId, runId: ended.id!, actor: "pinion" };
        return retry(db, asked, { doorbell: noteDoorbell() }).then(
          ({ id }) => ({ name: "retry", answer: { run: id } }),
          (error) => {
            if (error instanceof Refusal && error.reason === "failed_precondition")
              return { name: "retry", answer: "refused" as const };
            throw error;
          },
        );
      }),
    ),
  },
  {
    weight: 1,
    arbitrary: fc.constant(
      named("materialize", async (_, db) => {
        await materializeOnce(db, { doorbell: noteDoorbell(), log });
        return { name: "materialize" };
      }),
    ),
  },
  {
    weight: 5,
    arbitrary: pick.map((at) =>
      named(`claim(${at})`, async ({ device, epochs, known }, db) => {
        const epoch = latest(epochs, Math.floor(at / 3))!;
        const claimed = await claim(db, device, epoch);
        known.push(...claimed);
        const answer = claimed.map(({ runId, attemptToken }) => ({ run: runId, token: attemptToken }));
        return { name: "claim", epoch, answer };
      }),
    ),
  },
  {
    weight: 2,
    arbitrary: pick.map((at) =>
      named(`accept(${at})`, ({ known }, db) => {
        const attempt = latest(known, at);
        return (
          attempt &&
          accept(db, attempt).then(([answer]) => ({
            name: "accept",
            token: attempt.attemptToken,
            answer: answer!,
          }))
        );
      }),
    ),
  },
  {
    weight: 1,
    arbitrary: pick.map((at) =>
      named(`beat(${at})`, ({ known }, db) => {
        const attempt = latest(known, at);
        return (
          attempt &&
          attempts
            .beat(db, [{ ...attempt, workId: attempt.runId }])
            .then(() => ({ name: "beat", token: attempt.attemptToken }))
        );
      }),
    ),
  },
  {
    weight: 5,
    arbitrary: fc
      .tuple(pick, fc.constantFrom("completed" as const, "failed" as const, "cancelled" as const))
      .map(([at, status]) =>
        named(`report ${status}(${at})`, ({ known }, db) => {
          const attempt = latest(known, at);
          if (!attempt) return undefined;
          const token = attempt.attemptToken;
          const report = reportOf(attempt, { status, output: token });
          return storeOnce(db, [report], policy).then(({ verdicts }) => ({
            name: "report",
            token,
            status,
            answer: verdicts[0]!.verdict,
          }));
        }),
      ),
  },
  {
    weight: 1,
    arbitrary: fc.constant(
      named("cancel", ({ device: { orgId }, states, known }, db) => {
        const runId = states[0]!.run?.id ?? known.at(-1)?.runId;
        if (runId === undefined) return undefined;
        return cancelRun(db, { orgId, runId }, { reason: "asked", policy, doorbell: noteDoorbell() }).then(
          (answer) => ({ name: "cancel", run: runId, answer }),
        );
      }),
    ),
  },
  {
    weight: 2,
    arbitrary: fc.constant(
      named("reap", async (_, db) => {
        const reaped = await reapOnce(db, { rules: reapRules, policy });
        return { name: "reap", answer: reaped.length };
      }),
    ),
  },
  {
    weight: 2,
    arbitrary: fc.record({ holds: fc.boolean(), isFinished: fc.boolean() }).map(({ holds, isFinished }) =>
      named(
        `open ${holds ? "with" : "without"} what it had`,
        async ({ device, known, epochs, replicas }, db) => {
          const state = isFinished ? HeldAttemptState.FINISHED : HeldAttemptState.RUNNING;
          const held = holds
            ? known.map(({ runId, attemptToken }) => ({ workId: runId, attemptToken, state }))
            : [];
          const replicaId = `replica-${replicas.indexOf(db) + 1}`;
          const { epoch, verdicts } = await openDevice(db, device, { held, replicaId });
          epochs.push(epoch);
          return {
            name: "open",
            held: held.map(({ attemptToken }) => attemptToken),
            isFinished,
            answer: { epoch, verdicts: verdicts.map((verdict) => heldVerdicts[verdict]!) },
          };
        },
      ),
    ),
  },
  {
    weight: 1,
    arbitrary: pick.map((at) =>
      named(`close(${at})`, async ({ device, epochs }, db) => {
        const epoch = latest(epochs, Math.floor(at / 2))!;
        await presence.close(db, [sessionOf(device, epoch)]);
        return { name: "close", epoch };
      }),
    ),
  },
);

const nameOf = (one: Act) => (one as unknown as { [fc.toStringMethod](): string })[fc.toStringMethod]();

const together = fc.array(act, { minLength: 1, maxLength: 3 }).map((acts): Step => {
  const name = acts.map(nameOf).join(" | ");
  return Object.assign({ name, acts }, { [fc.toStringMethod]: () => name });
});

const alone = (name: string, run: (world: World) => Promise<void>): Step =>
  Object.assign({ name, alone: run }, { [fc.toStringMethod]: () => name });

/** Yesterday, a minute for each slot; the same minute comes again in a year. */
function slotAt(index: number): { schedule: string; at: Date } {
  const at = new Date(Date.now() - 86_400_000);
  at.setUTCHours(0, index, 0, 0);
  return {
    at,
    schedule: `${at.getUTCMinutes()} ${at.getUTCHours()} ${at.getUTCDate()} ${at.getUTCMonth() + 1} *`,
  };
}

const moments = fc.constantFrom<Step>(
  alone("a slot is due", async (world) => {
    if (world.states.every(({ isDue }) => isDue)) return;
    const { schedule, at } = slotAt(world.slots);
    world.slots += 1;
    const { watcherId } = world.watcher;
    await world.replicas[0]!.updateTable("watcher").set({ schedule }).where("id", "=", watcherId).execute();
    await putSchedule(world.replicas[0]!, world.watcher, at);
    for (const state of world.states) state.isDue = true;
  }),
  alone("its beats stopped", async ({ replicas, states, watcher }) => {
    const live = await liveRun(replicas[0]!, watcher);
    if (!live || live.status === "pending") return;
    await ageRun(replicas[0]!, { runId: live.id }, { last_beat_at: reapRules.silentAttemptMs + 1 });
    for (const { run } of states) if (run?.token !== undefined) run.isSilent = true;
  }),
  alone("the backoff is over", async ({ replicas, states, watcher }) => {
    const live = await liveRun(replicas[0]!, watcher);
    if (live) await ageRun(replicas[0]!, { runId: live.id }, { not_before: 0 });
    for (const { run } of states) if (run) run.isWaiting = false;
  }),
);

const step = fc.oneof({ weight: 4, arbitrary: together }, { weight: 1, arbitrary: moments });

const liveRun = (db: Db, { watcherId }: WatcherName) =>
  db
    .selectFrom("run")
    .select(["id", "status", "attempt", "attempt_token", "scheduled_for"])
    .where("watcher_id", "=", watcherId)
    .executeTakeFirst();

/** The watcher's data in the database, and the same data of a model state. */
async function shownBy(db: Db, watcher: WatcherName) {
  const live = await liveRun(db, watcher);
  const rows = await listRuns(db, watcher);
  const { due } = await db
    .selectFrom("schedule_position")
    .select((eb) => eb("next_due_at", "<", new Date()).as("due"))
    .where("watcher_id", "=", watcher.watcherId)
    .executeTakeFirstOrThrow();
  const windows = await db
    .selectFrom("window")
    .select("run_id")
    .where("watcher_id", "=", watcher.watcherId)
    .execute();
  const ended = rows.filter(({ finishedAt, status }) => finishedAt && status !== "skipped");
  return {
    id: live?.id,
    shown: {
      run: live
        ? { status: live.status, attempt: live.attempt, token: live.attempt_token ?? undefined }
        : undefined,
      ended: ended.map(({ status }) => status).sort(),
      skipped: rows.filter(({ status }) => status === "skipped").length,
      windows: windows.length,
      isDue: due === true,
    },
  };
}

function shownOf({ run, ended, skipped, isDue }: State) {
  return {
    run: run && { status: run.status, attempt: run.attempt, token: run.token },
    ended: ended.map(({ status }) => status).sort(),
    skipped,
    windows: ended.filter(({ status }) => status === "completed").length,
    isDue,
  };
}

async function take(world: World, one: Step): Promise<void> {
  const { replicas } = world;
  if ("alone" in one) await one.alone(world);
  else {
    const asked = one.acts.flatMap((run, index) => run(world, replicas[index % replicas.length]!) ?? []);
    const commands = await Promise.all(asked);
    const reached = applyTogether(world.states, commands, { maxAttempts });
    expect(reached, `no order of ${JSON.stringify(commands)} answers so`).not.toEqual([]);
    world.states = reached;
  }
  const { id, shown } = await shownBy(replicas[0]!, world.watcher);
  const possible = world.states.filter((state) => JSON.stringify(shownOf(state)) === JSON.stringify(shown));
  if (possible.length === 0) expect(shown).toEqual(shownOf(world.states[0]!));
  for (const { run } of possible) if (run) run.id ??= id;
  const distinct = new Map(possible.map((state) => [JSON.stringify(state), state]));
  world.states = [...distinct.values()];
}

test("whatever two replicas do at once to a watcher's runs, some order of it explains every answer", async () => {
  const { db } = database;
  const other = openDatabase({ url: database.url, poolMax: 5, applicationName: "pinion test 2" });
  onTestFinished(() => other.close());
  let lives = 0;
  await checkFor(
    { name: "interleavings", limitMs: timeLimitMs },
    fc.array(step, { minLength: 4, maxLength: 20, size: "max" }),
    async (life) => {
      lives += 1;
      const device = await seedDevice(db);
      const { epoch } = await openDevice(db, device);
      const watcher = await seedWatcher(db, device, { maxAttempts, catchupWindowMs: 30 * 86_400_000 });
      const world: World = {
        replicas: [db, other.db],
        device,
        watcher,
        known: [],
        epochs: [epoch],
        slots: 0,
        states: [newState(epoch)],
      };
      for (const one of life) await take(world, one);
      // The next life begins without rows of this one.
      await db.deleteFrom("run").execute();
      await db.updateTable("schedule_position").set({ next_slot_at: null, next_due_at: null }).execute();
    },
  );
  // A quiet machine has some dozens.
  expect(lives).toBeGreaterThan(2);
});
