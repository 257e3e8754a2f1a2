import { refuse } from "../errors.ts";
import { surePosition } from "../scheduler/slots/clock-doubt.ts";
import * as tokens from "../store/people/credentials/tokens.ts";
import * as devices from "../store/people/devices/devices.ts";
import * as joinCodes from "../store/people/devices/join-codes.ts";
import * as defaultAgents from "../store/people/orgs/default-agents.ts";
import * as members from "../store/people/orgs/members.ts";
import * as clock from "../store/pg/clock.ts";
import { type Db, transaction } from "../store/pg/database.ts";
import * as events from "../store/work/service/events.ts";
import * as orgMoves from "../store/work/service/org-moves.ts";
import * as watchers from "../store/work/watchers/watchers.ts";
import type { Surroundings } from "./surroundings.ts";

/** The watcher that is created with an org's first desktop device. */
const defaultWatcher = {
  slug: "daily-checkin",
  name: "Daily check-in",
  schedule: "0 9 * * *",
  timeZone: "UTC",
  prompt: `Give a short daily check-in of this machine and of what was worked on here since the last one: what changed, what looks unfinished, what deserves attention today. A few lines are enough.

If you lack history or context, say so; do not invent.`,
} as const;

export type Enrolment = {
  orgId: string;
  deviceId: string;
  /** The device's token; shown only here. */
  secret: string;
  /** The device's earlier tokens, revoked by the enrolment. */
  revokedTokenIds: string[];
  /** Other devices of the org with the same label. */
  sameLabelCount: number;
  /** The default watcher, if the enrolment created the watcher. */
  defaultWatcherId: string | undefined;
};

type Asked = {
  joinCode: string;
  installId: string;
  os: devices.Os;
  label: string;
  appVersion: string;
};

/**
 * Exchanges a join code for a device and its token, in one transaction. An install_id that the org
 * knows enrols the known device again, and ends its earlier tokens. Refuses with `unauthenticated`
 * a code that is unknown, used or expired, and a code whose maker, or the maker's token, is gone;
 * refuses with `permission_denied` another operating system than the device's, and a device that
 * the code may not enrol. A refusal does not use the code up.
 *
 * A device with an owner is enrolled again with a code of the owner, or of a current owner or admin
 * of the org, and keeps its owner. After the owner has left the org, a code of any member enrols
 * the device, and the member becomes its owner. A service's code enrols new devices, and devices
 * without an owner.
 *
 * With the org's first desktop device the default watcher is created, pinned to the device: exactly
 * once in the life of an org, by the sentinel `metadata.default_watcher_at`.
 */
export async function enroll(
  db: Db,
  asked: Asked,
  surroundings: Pick<Surroundings, "scheduleChanged">,
): Promise<Enrolment> {
  const enrolment = await transaction(db, async (tx) => {
    // The member before the code, as in a removal of a member, which deletes the member's codes.
    const maker = await joinCodes.findMaker(tx, { code: asked.joinCode });
    if (maker) await members.holdRole(tx, maker);
    const code = await joinCodes.consume(tx, { code: asked.joinCode });
    if (!code) {
      const leaving = await orgMoves.findOfJoinCode(tx, asked.joinCode);
      if (leaving) throw orgMoves.refusalOf(leaving);
      refuse("unauthenticated", "the join code is unknown, used or expired; ask for a new one");
    }
    const { orgId, userId } = code;
    const owner = await requireOwner(tx, asked, code);
    const device = await devices.enroll(tx, { orgId, ...asked, ...owner });
    if (!device) {
      refuse("aborted", "this installation was enrolled by somebody else just now; try again", {
        retryAfterMs: 1_000,
      });
    }
    const { deviceId, isNew } = device;
    const revokedTokenIds = await tokens.revokeOfDevice(tx, { orgId, deviceId });
    const { token, secret } = await tokens.issue(tx, {
      ...{ orgId, kind: "dev", label: asked.label, scopes: ["device:run"] },
      ...{ userId: owner.ownerId, deviceId },
    });
    const defaultWatcherId = devices.runsPrograms(asked.os)
      ? await provisionDefaultWatcher(tx, { orgId, deviceId })
      : undefined;
    const { label, os: platform, appVersion } = asked;
    await events.append(tx, orgId, [
      {
        kind: "device.enrolled",
        actor: userId ? `user:${userId}` : `device:${deviceId}`,
        deviceId,
        data: { label, platform, app_version: appVersion, token_id: token.id, is_new: isNew },
      },
      ...(defaultWatcherId ? [watcherCreated(defaultWatcherId, deviceId)] : []),
    ]);
    const sameLabelCount = await devices.countOthers(tx, { orgId, deviceId, label });
    return { orgId, deviceId, secret, revokedTokenIds, defaultWatcherId, sameLabelCount };
  });
  if (enrolment.defaultWatcherId) surroundings.scheduleChanged();
  return enrolment;
}

function watcherCreated(watcherId: string, deviceId: string) {
  const data = { slug: defaultWatcher.slug, version: 1 };
  return { kind: "watcher.created", actor: "pinion", watcherId, deviceId, data };
}

/**
 * The owner of the device after the enrolment, and the owner before. Members are locked before
 * devices, in the order of the removal of a member; so the owner is read first, and compared again
 * when the device is written.
 */
async function requireOwner(
  tx: Db,
  asked: Asked,
  code: { orgId: string; userId: string | null; tokenId: string | null },
): Promise<{ ownerId: string | null; ownerIdBefore: string | null }> {
  const { orgId, userId } = code;
  const role = userId ? await members.holdRole(tx, { orgId, userId }) : undefined;
  if (userId && !role) {
    refuse("unauthenticated", "whoever made the join code has left the org; ask for a new one");
  }
  await joinCodes.requireMaker(tx, code);
  const known = await devices.findInstallation(tx, { orgId, installId: asked.installId });
  if (known?.isWorker) {
    refuse(
      "permission_denied",
      "this installation is a fleet worker's; give the device a state directory of its own",
    );
  }
  const ownerIdBefore = known?.ownerId ?? null;
  let ownerId = userId;
  if (ownerIdBefore !== null && ownerIdBefore !== userId) {
    if (!userId) refuseTakeover();
    if (await members.hold(tx, { orgId, userId: ownerIdBefore })) {
      if (role !== "owner" && role !== "admin") refuseTakeover();
      ownerId = ownerIdBefore;
    }
  }
  if (known && known.os !== asked.os) {
    refuse(
      "permission_denied",
      "this installation is enrolled with another operating system; the operating system is set once",
    );
  }
  return { ownerId, ownerIdBefore };
}

function refuseTakeover(): never {
  refuse(
    "permission_denied",
    "this installation is enrolled for somebody else; ask them, or an owner or admin of the org, for the join code",
  );
}

/**
 * The new watcher's id; undefined if the org had its default watcher before, or has no default
 * agent.
 */
async function provisionDefaultWatcher(
  tx: Db,
  { orgId, deviceId }: { orgId: string; deviceId: string },
): Promise<string | undefined> {
  const agentId = await defaultAgents.takeDefaultWatcher(tx, { orgId });
  if (!agentId) return undefined;
  const place = { ...defaultWatcher, watcherId: "", jitterMs: 0 };
  const position = await surePosition(tx, place, await clock.now(tx));
  if (!position) throw new Error("the default watcher's schedule has no next slot");
  const { nextSlotAt } = position;
  return watchers.provision(tx, { orgId, deviceId, agentId, ...defaultWatcher, nextSlotAt });
}
