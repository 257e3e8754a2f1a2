import { create } from "@bufbuild/protobuf";
import { durationMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import { AbsenceSchema, type FleetService } from "#gen/pinion/v1/fleet_pb.js";
import { selectorProblem } from "../../cel/selector.ts";
import { refuse } from "../../errors.ts";
import * as callers from "../../store/people/credentials/callers.ts";
import * as deviceLabels from "../../store/people/devices/device-labels.ts";
import * as deviceLists from "../../store/people/devices/device-lists.ts";
import * as deviceSessions from "../../store/people/devices/device-sessions.ts";
import * as devices from "../../store/people/devices/devices.ts";
import * as grants from "../../store/people/devices/grants.ts";
import * as joinCodes from "../../store/people/devices/join-codes.ts";
import type { Db } from "../../store/pg/database.ts";
import * as runSummaries from "../../store/work/runs/run-summaries.ts";
import { remove as removeDevice } from "../../usecases/devices.ts";
import { revoke } from "../../usecases/grants.ts";
import type { Surroundings } from "../../usecases/surroundings.ts";
import { withCell } from "../../values/ids.ts";
import type { Guard } from "../access/guard.ts";
import { principalOf } from "../access/principal.ts";
import type { DeviceLogs } from "../device/hub/device-logs.ts";
import type { StreamEnds } from "../device/stream/stream-ends.ts";
import type { EventAnnouncer } from "./events.ts";
import { deviceMessage, livenessNames, osNames } from "./messages/device-message.ts";
import { given } from "./messages/given.ts";
import { granteeOf, grantMessage, permissionNames } from "./messages/grant-message.ts";
import { timestampOf } from "./messages/moments.ts";
import { idKey, page, textKey } from "./page.ts";

/**
 * The fleet service's messages to the replicas that hold devices' streams. Every message is a hint.
 */
export interface FleetDoorbell extends Pick<StreamEnds, "disconnect" | "revoke"> {
  /** Reports a change of the org's devices or of the rights on them. */
  devicesChanged(orgId: string): void;
}

/** The capability of a hello whose daemon answers `log_request`. */
const logCapability = "log";
const logLinesDefault = 100;
const joinCodeMsDefault = 15 * 60_000;

/** `ttlMs`: milliseconds of silence after which a device counts as gone. */
interface Deps {
  db: Db;
  doorbell: FleetDoorbell;
  /** For the use-cases. */
  surroundings: Surroundings;
  feed: EventAnnouncer;
  authCache: Guard["authCache"];
  /** The name in tokens and codes; "" for none. */
  cell: string;
  deviceLogs: Pick<DeviceLogs, "ask">;
  ttlMs: number;
}

type Served = ServiceImpl<typeof FleetService>;

export function fleetService(deps: Deps): Served {
  return { ...deviceReads(deps), ...deviceEdits(deps), ...grantRpcs(deps), ...joinRpcs(deps) };
}

function deviceReads(deps: Deps): Pick<Served, "listDevices" | "getDevice" | "getDeviceLog"> {
  const { db, ttlMs } = deps;

  return {
    async listDevices(request, context) {
      const { orgId } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.object({ label: textKey, id: idKey }),
        keyOf: (row: devices.Device) => ({ label: row.label, id: row.id }),
        fetch: (after, limit) => {
          const wanted = {
            ...{ orgId, ttlMs, limit, after, isWorker: request.isWorker },
            liveness: livenessNames(request.liveness),
            labelContains: request.labelContains,
            operatingSystems: osNames(request.operatingSystems),
            labels: request.labels,
          };
          const selector = selectorOf(request.selector);
          return selector === undefined
            ? deviceLists.list(db, wanted)
            : deviceLists.listMatching(db, selector, wanted);
        },
      });
      const lastRuns = request.includeLastRun
        ? await runSummaries.lastOfDevices(db, { orgId, deviceIds: rows.map((row) => row.id) })
        : undefined;
      return { devices: rows.map((row) => deviceMessage(row, lastRuns?.get(row.id))), nextPageToken };
    },

    async getDevice(request, context) {
      const { orgId } = principalOf(context);
      const { deviceId } = request;
      const device = await devices.get(db, { orgId, ttlMs, deviceId });
      const lastRuns = await runSummaries.lastOfDevices(db, { orgId, deviceIds: [deviceId] });
      const message = deviceMessage(device, lastRuns.get(device.id));
      message.absences = (device.absences as { from: string; to: string }[]).map(({ from, to }) =>
        create(AbsenceSchema, {
          from: timestampFromDate(new Date(from)),
          to: timestampFromDate(new Date(to)),
        }),
      );
      return { device: message };
    },

    async getDeviceLog({ deviceId, linesMax }, context) {
      const { orgId } = principalOf(context);
      const device = await devices.get(db, { orgId, ttlMs, deviceId });
      if (device.connected_at === null || device.disconnected_at !== null) {
        refuse("failed_precondition", `${device.label} is not connected`);
      }
      if (!device.capabilities.includes(logCapability)) {
        refuse("failed_precondition", `the daemon of ${device.label} gives no log; upgrade the daemon`);
      }
      return deps.deviceLogs.ask({ orgId, deviceId, linesMax: linesMax || logLinesDefault });
    },
  };
}

function deviceEdits(
  deps: Deps,
): Pick<Served, "updateDevice" | "labelDevice" | "deleteDevice" | "disconnectDevice"> {
  const { db, doorbell, feed, surroundings, ttlMs } = deps;

  return {
    async updateDevice(request, context) {
      const { orgId, actor } = principalOf(context);
      const { deviceId, label } = request;
      const paths = request.updateMask?.paths ?? [];
      if (paths.length === 0 || paths.some((path) => path !== "label")) {
        refuse("invalid_argument", 'update_mask: only "label" can be changed', { field: "update_mask" });
      }
      if (label === "") refuse("invalid_argument", "label: must have 1 to 100 bytes", { field: "label" });
      await devices.updateLabel(db, { orgId, deviceId, label, actor });
      feed.eventsAppended(orgId);
      return { device: deviceMessage(await devices.get(db, { orgId, ttlMs, deviceId })) };
    },

    async labelDevice(request, context) {
      const { orgId, actor } = principalOf(context);
      const { deviceId, add, remove, dryRun: isDryRun } = request;
      if ((await deviceLabels.change(db, { orgId, deviceId, add, remove, actor, isDryRun })) && !isDryRun) {
        feed.eventsAppended(orgId);
        doorbell.devicesChanged(orgId);
      }
      return { device: deviceMessage(await devices.get(db, { orgId, ttlMs, deviceId })) };
    },

    async deleteDevice(request, context) {
      const { orgId, actor } = principalOf(context);
      const { deviceId } = request;
      const removal = await removeDevice(db, { orgId, deviceId, actor }, surroundings);
      feed.eventsAppended(orgId);
      for (const tokenId of removal.tokenIds) {
        deps.authCache.forget(tokenId);
        doorbell.revoke(tokenId);
      }
      if (removal.session) doorbell.disconnect({ orgId, deviceId, ...removal.session, reason: "revoked" });
      return {
        watchersUnpinned: removal.watchersUnpinned,
        agentsUnpinned: removal.agentsUnpinned,
        runsCancelled: removal.runsCancelled,
      };
    },

    async disconnectDevice(request, context) {
      const { orgId, actor } = principalOf(context);
      const { deviceId } = request;
      const session = await deviceSessions.requestDisconnect(db, { orgId, deviceId, actor });
      feed.eventsAppended(orgId);
      doorbell.disconnect({ orgId, deviceId, ...session, reason: "operator" });
      return {};
    },
  };
}

function grantRpcs(deps: Deps): Pick<Served, "grantDevice" | "revokeGrant" | "listGrants"> {
  const { db, doorbell, feed, surroundings, ttlMs } = deps;

  return {
    async grantDevice(request, context) {
      const { orgId, actor } = principalOf(context);
      const granted = await grants.grant(db, {
        ...{ orgId, actor, deviceId: request.deviceId },
        grantee: granteeOf(given(request.grantee, "grantee")),
        permissions: permissionNames(request.permissions),
      });
      feed.eventsAppended(orgId);
      doorbell.devicesChanged(orgId);
      return { grants: granted.map(grantMessage) };
    },

    async revokeGrant(request, context) {
      const { orgId, actor } = principalOf(context);
      const revoked = {
        ...{ orgId, actor, deviceId: request.deviceId },
        grantee: granteeOf(given(request.grantee, "grantee")),
        permissions: permissionNames(request.permissions),
      };
      const { taken, stranded } = await revoke(db, revoked, surroundings);
      feed.eventsAppended(orgId);
      return {
        grants: taken.map(grantMessage),
        watchersPaused: stranded.watcherIds.length,
        runsCancelled: stranded.runsCancelled,
      };
    },

    async listGrants(request, context) {
      const { orgId } = principalOf(context);
      const deviceId = request.deviceId || undefined;
      if (deviceId) await devices.get(db, { orgId, ttlMs, deviceId });
      const { rows, nextPageToken } = await page(request, {
        key: z.object({ deviceId: idKey, id: idKey }),
        keyOf: (row: grants.Grant) => ({ deviceId: row.deviceId, id: row.id }),
        fetch: (after, limit) => grants.list(db, { orgId, deviceId, after, limit }),
      });
      return { grants: rows.map(grantMessage), nextPageToken };
    },
  };
}

function joinRpcs(deps: Deps): Pick<Served, "createJoinCode"> {
  const { db, feed, cell } = deps;

  return {
    async createJoinCode(request, context) {
      const principal = principalOf(context);
      const { orgId, actor, userId, tokenId } = principal;
      const { requestId } = request;
      const { code, expiresAt } = await callers.whileGood(db, principal, (tx) =>
        joinCodes.create(tx, {
          orgId,
          actor,
          userId,
          tokenId,
          requestId,
          expiresInMs: request.expiresIn ? durationMs(request.expiresIn) : joinCodeMsDefault,
        }),
      );
      feed.eventsAppended(orgId);
      return { joinCode: withCell(code, cell), expiresAt: timestampOf(expiresAt) };
    },
  };
}

/** A selector of a request; undefined: none. */
function selectorOf(selector: string): string | undefined {
  if (selector === "") return undefined;
  const problem = selectorProblem(selector);
  if (problem) refuse("invalid_argument", `selector: ${problem}`, { field: "selector" });
  return selector;
}
