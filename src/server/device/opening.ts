import { type JsonObject, toJson } from "@bufbuild/protobuf";
import { ExecutorInfoSchema, WorkspaceInfoSchema } from "#gen/pinion/v1/activity_pb.js";
import { type Hello, UpgradeInfoSchema } from "#gen/pinion/v1/device_pb.js";
import { refuse } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import * as devices from "../../store/people/devices.ts";
import * as hellos from "../../store/people/hellos.ts";
import * as machines from "../../store/people/machines.ts";
import * as workers from "../../store/people/workers.ts";
import { type Db, transaction } from "../../store/pg/database.ts";
import { storableText } from "../../store/pg/storable.ts";
import * as events from "../../store/work/events.ts";
import * as orgMoves from "../../store/work/org-moves.ts";
import type { FailurePolicy } from "../../store/work/settlements.ts";
import { osNameOf } from "../enums.ts";
import { requireAllowed } from "./allowed.ts";
import { type Opening, openSession } from "./reconcile.ts";
import type { Session } from "./session.ts";

type Deps = { db: Db; log: Logger; replicaId: string; policy: FailurePolicy; ttlMs: number };
type Device = NonNullable<Awaited<ReturnType<typeof devices.find>>>;
type Greeting = Pick<Session, "orgId" | "deviceId" | "tokenId" | "isWorker">;

/**
 * Opens the session of a hello: checks the identity, stores the hello's facts, and reconciles the
 * held attempts.
 */
export async function open(deps: Deps, session: Greeting, hello: Hello): Promise<Opening> {
  const { orgId } = session;
  const opening = await (session.isWorker ? openWorker : openDevice)(deps, session, hello);
  // A verdict from behind the fence of a move would end what goes on.
  if (hello.held.length > opening.continuing.length) await orgMoves.requireHere(deps.db, { orgId });
  const { deviceId, epoch } = opening;
  deps.log.info({ orgId, deviceId, epoch, held: hello.held.length }, "a device session began");
  return opening;
}

/** A device that tells nothing new, as most do that come back, costs one transaction. */
async function openDevice(deps: Deps, { orgId, deviceId }: Greeting, hello: Hello): Promise<Opening> {
  const { db } = deps;
  const { held } = hello;
  const openIn = (tx: Db) => openSession(tx, { ...deps, orgId, deviceId, held });
  const found = await transaction(db, async (tx) => {
    const device = await devices.find(tx, { orgId, deviceId });
    if (!device) return { device };
    requireIdentity(device, hello);
    const isNew =
      machines.isNewMachine(device, machineOf(hello)) || hellos.hasChanges(device, factsOf(hello));
    return { device, opening: isNew ? undefined : await openIn(tx) };
  });
  const { device, opening } = found;
  if (opening) return opening;
  if (!device) await orgMoves.requireHere(db, { orgId });
  if (!device) refuse("unauthenticated", "the device was deleted; enrol it again");
  await requireOneMachine(deps, device, hello);
  await hellos.updateFromHello(db, device, factsOf(hello));
  return transaction(db, openIn);
}

/** The token identifies the device (R6); the message must agree. */
function requireIdentity(device: Device, hello: Hello): void {
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

function machineOf({ machine }: Hello): machines.Machine | undefined {
  if (!machine) return undefined;
  const { machineHash, bootHash, hostName, arch } = machine;
  return { machineHash, bootHash, hostName: storableText(hostName), arch: storableText(arch) };
}

/**
 * Refuses a second machine with a copy of the device's identity while the first machine's session
 * is alive.
 */
async function requireOneMachine({ db, ttlMs }: Deps, device: Device, hello: Hello): Promise<void> {
  const machine = machineOf(hello);
  if (!machine) return;
  const other = await machines.findOtherMachine(db, device, { machine, ttlMs });
  if (other) refuse("failed_precondition", duplicateWords(other.hostName, machine.hostName));
  await machines.noteMachine(db, device, machine);
}

/**
 * In one transaction, so that a worker with a row is not deleted as absent before its session
 * exists.
 */
function openWorker(deps: Deps, { orgId, tokenId }: Greeting, hello: Hello): Promise<Opening> {
  const { db, ttlMs } = deps;
  const { installId, held } = hello;
  return transaction(db, async (tx) => {
    const os = osNameOf(hello.os) ?? refuse("invalid_argument", "hello.os: name one", { field: "hello.os" });
    const facts = { installId, os, ttlMs, ...factsOf(hello) };
    const entry = await workers.enter(tx, { orgId, tokenId, ...facts });
    const opening = await openSession(tx, { ...deps, orgId, deviceId: entry.deviceId, held });
    await events.append(tx, orgId, entry.events);
    return opening;
  });
}

/** The refusal for a second machine with the same identity. */
function duplicateWords(connectedFrom: string, here: string): string {
  return `this device is connected from another machine (${connectedFrom || "nameless"}), and ${here || "this one"} has a copy of its identity; \`pinion device enroll --anew --join-code …\` makes this machine a device of its own`;
}

function factsOf(hello: Hello): hellos.HelloFacts {
  const { appVersion, label, agentKinds, capabilities, maxConcurrency } = hello;
  return {
    configProblem: storableText(hello.configProblem),
    ...{ appVersion, label, agentKinds, capabilities, maxConcurrency },
    upgrade: hello.upgrade ? (toJson(UpgradeInfoSchema, hello.upgrade) as JsonObject) : null,
    executors: hello.executors.map((executor) => toJson(ExecutorInfoSchema, executor) as JsonObject),
    workspaces: hello.workspaces.map((workspace) => toJson(WorkspaceInfoSchema, workspace) as JsonObject),
  };
}
