import { type JsonObject, toJson } from "@bufbuild/protobuf";
import { ExecutorInfoSchema, WorkspaceInfoSchema } from "#gen/pinion/v1/activity_pb.js";
import { type Hello, UpgradeInfoSchema } from "#gen/pinion/v1/device_pb.js";
import { createBatcher } from "../../../batches/batcher.ts";
import { Limit } from "../../../batches/limit.ts";
import { pairsOf } from "../../../batches/pairs.ts";
import { Refusal, refuse } from "../../../errors.ts";
import * as devices from "../../../store/people/devices/devices.ts";
import * as hellos from "../../../store/people/devices/hellos.ts";
import * as machines from "../../../store/people/devices/machines.ts";
import * as workers from "../../../store/people/devices/workers.ts";
import { transaction } from "../../../store/pg/database.ts";
import { mayBeOfOneRow } from "../../../store/pg/failures.ts";
import { onlyRow } from "../../../store/pg/values/only-row.ts";
import { storableText } from "../../../store/pg/values/storable.ts";
import type { FailurePolicy } from "../../../store/work/attempts/settlements.ts";
import * as events from "../../../store/work/service/events.ts";
import * as orgMoves from "../../../store/work/service/org-moves.ts";
import type { Logger } from "../../../telemetry/log.ts";
import { isBlank } from "../../access/interceptors/blank-names.ts";
import { osNameOf } from "../../enums.ts";
import { type Opening, openSession, openSessions } from "../reconcile/reconcile.ts";
import { requireAllowed } from "./allowed.ts";
import { createQuiet, machineOf, type RivalDeps, requireOneMachine, sessionEpochOf } from "./rivals.ts";
import type { Session } from "./session.ts";

type Deps = RivalDeps & { log: Logger; replicaId: string; policy: FailurePolicy };
type Greeting = Pick<Session, "orgId" | "deviceId" | "tokenId" | "isWorker">;
type Greeted = { session: Greeting; hello: Hello };

/**
 * Opens the session of a hello: checks the identity, stores the hello's facts, and reconciles the
 * held attempts.
 */
export async function open(deps: Deps, session: Greeting, hello: Hello): Promise<Opening> {
  if (session.isWorker) return finish(deps, { session, hello }, await openWorker(deps, session, hello));
  const first = onlyRow(await openReturning(deps, [{ session, hello }]));
  return openRest(deps, { session, hello }, first);
}

/** Maximum hellos whose sessions are opened in one transaction. */
const togetherMax = 50;
/**
 * Maximum sessions opened at once in transactions of their own; other work needs connections, too.
 */
const apartMax = 3;

/** Opens the sessions of many hellos, each like {@link open}. */
export function createOpenings(
  given: Omit<Deps, "isQuiet"> & { waitingMax: number },
): (session: Greeting & Pick<Session, "state">, hello: Hello) => Promise<Opening> {
  const quiet = createQuiet(given.ttlMs);
  const deps = { ...given, isQuiet: quiet.isQuiet };
  const apart = new Limit(apartMax);
  const returning = createBatcher<Greeted & { session: Pick<Session, "state"> }, First | undefined>({
    run: async (greeted) => {
      // A device that has given up dials again: its abandoned hellos cost the other devices
      // nothing.
      const waiting = greeted.filter(({ session }) => session.state !== "closed");
      const firsts = await quiet.heeding(() => openReturning(deps, waiting));
      return greeted.map((one) => firsts[waiting.indexOf(one)]);
    },
    itemsMax: togetherMax,
    queueMax: given.waitingMax,
    mayIsolate: mayBeOfOneRow,
    overflow: () => new Refusal("unavailable", "too many devices connect at once", { retryAfterMs: 5_000 }),
  });
  return async (session, hello) => {
    if (session.isWorker) {
      return apart.run(async () => {
        if (session.state === "closed") abandoned();
        return finish(deps, { session, hello }, await openWorker(deps, session, hello));
      });
    }
    const first = (await returning.add({ session, hello })) ?? abandoned();
    const rest = () => openRest(deps, { session, hello }, first);
    return "opening" in first ? rest() : apart.run(rest);
  };
}

function abandoned(): never {
  throw new Refusal("unavailable", "the stream ended while it waited");
}

/**
 * The result of the common transaction: an opened session, or the device (undefined: deleted) of a
 * hello that needs a transaction of its own.
 */
type First = { opening: Opening } | { device: devices.Known | undefined };

/**
 * Opens the sessions of devices whose hellos have no news: most hellos of returning devices. The
 * devices share a transaction, some dozens of them in a storm. A device that another transaction
 * has locked gets a transaction of its own.
 */
async function openReturning(deps: Deps, greeted: readonly Greeted[]): Promise<First[]> {
  if (greeted.length === 0) return [];
  return transaction(deps.db, async (tx) => {
    const found = await devices.lockReturning(
      tx,
      greeted.map(({ session }) => session),
    );
    const seen = new Set<string>();
    const returning = greeted.filter(({ session: { deviceId }, hello }, index) => {
      const device = found[index];
      if (!device || seen.has(deviceId) || !isReturning(device, hello)) return false;
      seen.add(deviceId);
      return true;
    });
    const openings = await openSessions(
      tx,
      deps,
      returning.map(({ session: { orgId, deviceId }, hello }) => ({ orgId, deviceId, held: hello.held })),
    );
    const opened = new Map(pairsOf(returning, openings));
    return greeted.map((one, index) => {
      const opening = opened.get(one);
      return opening ? { opening } : { device: found[index] };
    });
  });
}

/** Whether a hello agrees in all fields with the stored facts of its device. */
function isReturning(device: devices.Returning, hello: Hello): boolean {
  const held = new Set(hello.held.map(({ attemptToken }) => attemptToken));
  return (
    device.isFree &&
    hello.installId === device.install_id &&
    osNameOf(hello.os) === device.os &&
    device.attemptTokens.length === held.size &&
    device.attemptTokens.every((token) => held.has(token)) &&
    !machines.isNewMachine(device, machineOf(hello)) &&
    !machines.isLaterSession({ epoch: device.beatenEpoch, isBeaten: true }, sessionEpochOf(hello)) &&
    !hellos.hasChanges(device, factsOf(hello))
  );
}

async function openRest(deps: Deps, { session, hello }: Greeted, first: First): Promise<Opening> {
  if ("opening" in first) return finish(deps, { session, hello }, first.opening);
  const { db } = deps;
  const { orgId, deviceId } = session;
  const { device } = first;
  if (!device) await orgMoves.requireHere(db, { orgId });
  if (!device) refuse("unauthenticated", "the device was deleted; enrol it again");
  requireIdentity(device, hello);
  await requireOneMachine(deps, { device, isWorker: false }, hello);
  await hellos.updateFromHello(db, device, factsOf(hello));
  const { held } = hello;
  const opening = await transaction(db, (tx) => openSession(tx, { ...deps, orgId, deviceId, held }));
  return finish(deps, { session, hello }, opening);
}

async function finish(deps: Deps, { session, hello }: Greeted, opening: Opening): Promise<Opening> {
  const { orgId } = session;
  // Behind the fence of an org's move, a verdict would end attempts that go on in the other cell.
  if (hello.held.length > opening.continuing.length) await orgMoves.requireHere(deps.db, { orgId });
  const { deviceId, epoch } = opening;
  deps.log.info({ orgId, deviceId, epoch, held: hello.held.length }, "a device session began");
  return opening;
}

/** The token identifies the device (R6); the hello must agree with the device. */
function requireIdentity(device: devices.Known, hello: Hello): void {
  if (hello.installId !== device.install_id) {
    refuse("permission_denied", "the token belongs to another installation; enrol this one", {
      field: "hello.install_id",
    });
  }
  if (osNameOf(hello.os) !== device.os) {
    refuse("permission_denied", `the device was enrolled as ${device.os}, which is set once`, {
      field: "hello.os",
    });
  }
  requireAllowed(device.os as devices.Os, hello);
}

/**
 * Opens a worker's session and writes its row in one transaction, so that the row is not deleted as
 * an absent worker's before the session exists.
 */
async function openWorker(deps: Deps, { orgId, tokenId }: Greeting, hello: Hello): Promise<Opening> {
  const { db, ttlMs } = deps;
  const { installId, held } = hello;
  const device = await workers.findOfToken(db, { orgId, tokenId, installId });
  if (device) await requireOneMachine(deps, { device, isWorker: true }, hello);
  return transaction(db, async (tx) => {
    const os = osNameOf(hello.os) ?? refuse("invalid_argument", "hello.os: name one", { field: "hello.os" });
    const facts = { installId, os, ttlMs, ...factsOf(hello) };
    const entry = await workers.enter(tx, { orgId, tokenId, ...facts });
    const machine = device ? undefined : machineOf(hello);
    if (machine) await machines.noteMachine(tx, { org_id: orgId, id: entry.deviceId, machine: {} }, machine);
    const opening = await openSession(tx, { ...deps, orgId, deviceId: entry.deviceId, held });
    await events.append(tx, orgId, entry.events);
    return opening;
  });
}

function factsOf(hello: Hello): hellos.HelloFacts {
  const { appVersion, label, agentKinds, capabilities, maxConcurrency } = hello;
  return {
    configProblem: storableText(hello.configProblem),
    // A label that nobody can see is none, and keeps the stored label.
    label: isBlank(label) ? "" : label,
    ...{ appVersion, agentKinds, capabilities, maxConcurrency },
    upgrade: hello.upgrade ? (toJson(UpgradeInfoSchema, hello.upgrade) as JsonObject) : null,
    executors: hello.executors.map((executor) => toJson(ExecutorInfoSchema, executor) as JsonObject),
    workspaces: hello.workspaces.map((workspace) => toJson(WorkspaceInfoSchema, workspace) as JsonObject),
  };
}
