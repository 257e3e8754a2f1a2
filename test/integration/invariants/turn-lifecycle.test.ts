/** The table of a turn's life in docs/lifecycles.md, played cell by cell. */
import { readFileSync } from "node:fs";
import { sql } from "kysely";
import { beforeEach, expect, test } from "vitest";
import { HeldAttemptState } from "#gen/pinion/v1/device_pb.js";
import { cancelTurn } from "../../../src/scheduler/endings/cancels.ts";
import { createEndings } from "../../../src/scheduler/endings/endings.ts";
import { storeRepliesOnce, turnEndings } from "../../../src/scheduler/endings/turn-endings.ts";
import { failTurnsOfSessions, sweepTurnsOnce } from "../../../src/scheduler/endings/turn-sweep.ts";
import { type Db, transaction } from "../../../src/store/pg/database.ts";
import * as presence from "../../../src/store/work/service/presence.ts";
import * as turnAttempts from "../../../src/store/work/turns/turn-attempts.ts";
import { withdraw } from "../../../src/store/work/turns/turn-settlements.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { useDatabase } from "../../support/database.ts";
import { openDevice } from "../../support/rows.ts";
import {
  acceptTurn,
  ageTurn,
  attemptOf,
  claimTurns,
  endsOf,
  findTurn,
  replyOf,
  type Seated,
  seedWorker,
  startTurn,
  turnTimers,
} from "../../support/turns.ts";

const database = useDatabase({ per: "file" });
beforeEach(() => sql`truncate turn, turn_finished, turn_message, conversation`.execute(database.db));
const states = ["pending", "claimed", "running", "ended"] as const;
type State = (typeof states)[number];

type Scene = { db: Db; state: State; worker: Seated; turn: turnAttempts.ClaimedTurn };

const sweep = ({ db }: Scene) => sweepTurnsOnce(db, { ttlMs: turnTimers.ttlMs });
const store = ({ db }: Scene, reply: Parameters<typeof storeRepliesOnce>[1][number]) =>
  transaction(db, (tx) => storeRepliesOnce(tx, [reply]));
const heldIn = ({ turn }: Scene) => ({
  held: [{ workId: turn.turnId, attemptToken: turn.attemptToken, state: HeldAttemptState.RUNNING }],
});
const log = createLogger({ name: "test", level: "silent" });
const deaf = {
  settled() {},
  turnStarted() {},
  turnsEnded() {},
  repliesKept() {},
  turnsWithdrawn() {},
  cancelling() {},
};
const cancel = ({ db, turn }: Scene) =>
  cancelTurn(db, { orgId: turn.orgId, turnId: turn.turnId }, { reason: "enough", doorbell: deaf });

/** The events of the table, each applied to a turn in any state. */
const events: Record<string, (scene: Scene) => Promise<unknown>> = {
  "claimed by a worker with a free slot, with the lease": ({ db, worker }) => claimTurns(db, worker, 8),
  accepted: ({ db, turn }) => acceptTurn(db, turn),
  "listed in a heartbeat": ({ db, turn }) => turnAttempts.beat(db, [attemptOf(turn)], turnTimers.ttlMs),
  "held in the hello of a new session": (scene) => openDevice(scene.db, scene.worker, heldIn(scene)),
  "not held in the hello of a new session": ({ db, worker }) => openDevice(db, worker),
  answered: (scene) => store(scene, replyOf(scene.turn)),
  async "answered after its lease passed to a later turn"(scene) {
    // A waiting turn has no lease to be taken over.
    if (scene.state !== "pending") {
      await startTurn(scene.db);
      await ageTurn(scene.db, scene.turn, { deadline_at: 1 });
      await claimTurns(scene.db, await seedWorker(scene.db), 1);
    }
    await store(scene, replyOf(scene.turn));
  },
  "the program failed": (scene) => store(scene, replyOf(scene.turn, { status: "failed", reason: "exit 1" })),
  async "the worker ended it as asked"(scene) {
    await store(scene, replyOf(scene.turn, { status: "cancelled" }));
  },
  "turned down for now, or never accepted": ({ db, turn, worker }) =>
    withdraw(db, [{ ...turn, session: worker, reason: "busy", delayMs: 0 }]),
  async "turned down after it was accepted"({ db, state, turn, worker }) {
    if (state !== "running") return;
    const endings = createEndings(turnEndings({ doorbell: deaf }), { db, log });
    const ended = { action: "finish", status: "failed", reason: "given up" } as const;
    await endings.settle({ ...attemptOf(turn), deviceId: null, session: worker, ...ended });
  },
  async "the worker's stream broke"({ db, turn, worker }) {
    await presence.close(db, [worker]);
    const broken = { ...worker, pushed: new Set([turn.attemptToken]) };
    await failTurnsOfSessions(db, [broken], { log, onEnded() {} });
  },
  "the worker was asked to move, and left": ({ db, worker }) => presence.close(db, [worker]),
  async "its beats stopped for the TTL"(scene) {
    if (scene.state !== "pending") await ageTurn(scene.db, scene.turn, { deadline_at: 1 });
    await sweep(scene);
  },
  async "its timeout and the grace passed"(scene) {
    await ageTurn(scene.db, scene.turn, { expires_at: 1 });
    await sweep(scene);
  },
  async "its start deadline passed"(scene) {
    await ageTurn(scene.db, scene.turn, { start_deadline_at: 1 });
    await sweep(scene);
  },
  "somebody cancels it": cancel,
  async "asked to cancel, and the TTL passed"(scene) {
    await ageTurn(scene.db, scene.turn, { cancel_requested_at: turnTimers.ttlMs + 1 });
    await sweep(scene);
  },
};

/**
 * A turn in a state. The events that name an attempt use the turn's current or last attempt, or,
 * while pending, an unknown attempt.
 */
async function scene(db: Db, state: State): Promise<Scene> {
  const worker = await seedWorker(db);
  const { turnId } = await startTurn(db);
  if (state === "pending") {
    const never = { ...replyless, orgId: "local", turnId, deviceId: worker.deviceId };
    return { db, state, worker, turn: never };
  }
  const [turn] = await claimTurns(db, worker);
  const made = { db, state, worker, turn: turn! };
  if (state !== "claimed") await acceptTurn(db, turn!);
  if (state === "ended") await store(made, replyOf(turn!));
  return made;
}

const replyless = {
  attemptToken: "0190f5fe-7c00-7a00-8000-000000000001",
} as turnAttempts.ClaimedTurn;

const doc = readFileSync(new URL("../../../docs/lifecycles.md", import.meta.url), "utf8");
const table = doc
  .slice(doc.indexOf("<!-- played by test/integration/invariants/turn-lifecycle"))
  .split("\n\n")[0]!;
const [header, , ...rows] = table
  .split("\n")
  .slice(1)
  .map((line) =>
    line
      .slice(2, -2)
      .split(" | ")
      .map((cell) => cell.replaceAll("`", "")),
  );

test("the table has every state and every event", () => {
  expect(header).toEqual(["event", ...states]);
  expect(rows.map(([event]) => event)).toEqual(Object.keys(events));
});

const cells = rows.flatMap(([event, ...after]) =>
  states.map((state, index) => [event!, state, after[index]!] as const),
);

test.each(cells)("%s, while %s: %s", async (event, state, after) => {
  const { db } = database;
  const made = await scene(db, state);
  const before = await findTurn(db, made.turn);
  await events[event]!(made);
  const { status } = await findTurn(db, made.turn);
  expect(status).toBe(after === "–" ? before.status : after);
  const isOver = !["pending", "claimed", "running"].includes(status);
  expect(await endsOf(db, made.turn)).toEqual(isOver ? [`turn.${status}`] : []);
});
