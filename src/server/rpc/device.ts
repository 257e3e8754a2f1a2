import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import {
  CompleteRunRequestSchema,
  type ConnectRequest,
  type ConnectResponse,
  type DeviceService,
} from "#gen/pinion/v1/device_pb.js";
import { Refusal, refuse } from "../../errors.ts";
import { nextSlot } from "../../scheduler/schedule/schedule.ts";
import * as devices from "../../store/people/devices.ts";
import * as workers from "../../store/people/workers.ts";
import * as clock from "../../store/pg/clock.ts";
import type { Db } from "../../store/pg/database.ts";
import * as turnAttempts from "../../store/work/turn-attempts.ts";
import * as watchers from "../../store/work/watchers.ts";
import { type Guard, principalOf } from "../access/guard.ts";
import { checkMessage } from "../access/interceptors/validate.ts";
import { cutLater } from "../access/peer.ts";
import { type Hub, platformOf } from "../device/hub.ts";
import { endGraceMs, openLink } from "../device/link.ts";
import { normalizeName, reportOf, verdictOf, verdictText } from "../device/messages.ts";
import type { Session } from "../device/session.ts";
import type { Telemetry } from "../telemetry.ts";
import { inputOf } from "./input-message.ts";
import { page } from "./page.ts";
import { watcherMessage } from "./watcher-message.ts";
import type { WatcherScheduler } from "./watchers.ts";

/** As the message's rule has it; another text is not asked for in the database. */
const isUuid = (text: string) => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);

/** What a device's daemon speaks; the stream itself is the session's (src/server/device/session.ts). */
export function deviceService(deps: {
  db: Db;
  /** For Enroll, whose join code names the org: there is no principal yet. */
  crossOrgDb: Db;
  hub: Hub;
  scheduler: Pick<WatcherScheduler, "trigger" | "scheduleChanged">;
  doorbell: { revoke(tokenId: string): void; eventsAppended(orgId: string): void };
  authCache: Guard["authCache"];
  telemetry: Pick<Telemetry, "acknowledged">;
}): ServiceImpl<typeof DeviceService> {
  const { db, hub, scheduler } = deps;
  return {
    connect: (requests, context) => carry(hub, requests, context),

    async enroll(request) {
      const { schedule, timeZone } = devices.defaultWatcher;
      const enrolment = await devices.enroll(deps.crossOrgDb, {
        joinCode: request.joinCode,
        installId: request.installId,
        platform: platformOf[request.platform]!,
        label: request.label,
        appVersion: request.appVersion,
        defaultNextSlotAt: nextSlot({ schedule, timeZone }, await clock.now(deps.crossOrgDb))!,
      });
      for (const tokenId of enrolment.revokedTokenIds) {
        deps.authCache.forget(tokenId);
        deps.doorbell.revoke(tokenId);
      }
      const { orgId, deviceId, secret, defaultWatcherId } = enrolment;
      deps.doorbell.eventsAppended(orgId);
      if (defaultWatcherId) scheduler.scheduleChanged({ orgId, deviceId, watcherId: defaultWatcherId });
      return { deviceId, orgId, token: secret };
    },

    async completeRun(request, context) {
      const { orgId, tokenId, deviceId } = principalOf(context);
      const { completion } = request;
      if (!completion) refuse("invalid_argument", "completion: value is required", { field: "completion" });
      normalizeName(completion);
      // Which of the token's workers it is, the attempt says.
      const named = { orgId, tokenId, ...completion };
      const violation = checkMessage(CompleteRunRequestSchema, request);
      const isNamed = isUuid(completion.runId) && isUuid(completion.attemptToken);
      const executorId =
        deviceId ??
        (isNamed
          ? ((await workers.findHolder(db, named)) ?? (await turnAttempts.findHolder(db, named)))
          : undefined);
      if (violation) {
        const { runId, attemptToken } = completion;
        if (executorId && isNamed) {
          const attempt = { orgId, deviceId: executorId, runId, attemptToken };
          await hub.turnDown(attempt, completion, violation.message);
        }
        refuse("invalid_argument", violation.message, { field: violation.field });
      }
      if (!executorId)
        refuse("not_found", `no worker of this token has had such an attempt of run ${completion.runId}`);
      const report = reportOf({ orgId, deviceId: executorId }, completion);
      const startedAt = performance.now();
      const { verdict, windowId } = await hub.report(report).catch(async (error: unknown) => {
        if (error instanceof Refusal && error.reason === "invalid_argument") {
          await hub.turnDown(report, completion, error.message);
        }
        throw error;
      });
      deps.telemetry.acknowledged(report, verdict, performance.now() - startedAt);
      if (verdict === "unknown")
        refuse("not_found", `this device has no such attempt of run ${report.runId}`);
      return { verdict: verdictOf[verdict], windowId: windowId ?? "", message: verdictText[verdict] };
    },

    async triggerWatcher(request, context) {
      const { orgId, deviceId, actor } = principalOf(context);
      const watcher = await watchers.find(db, { orgId, watcher: request.watcherId });
      // R6: another device's watcher is not there for this one.
      if (!watcher || watcher.device_id !== deviceId) {
        refuse("not_found", `there is no watcher "${request.watcherId}" pinned to this device`);
      }
      const input = inputOf(request.input);
      return scheduler.trigger({ orgId, actor, watcherId: watcher.id, input });
    },

    async listMyWatchers(request, context) {
      const { orgId, deviceId } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([z.string()]),
        keyOf: (row: watchers.Watcher) => [row.slug] as [string],
        fetch: (after, limit) =>
          watchers.list(db, { orgId, limit, afterSlug: after?.[0], deviceId: deviceId! }),
      });
      return { watchers: rows.map((row) => watcherMessage(row)), nextPageToken };
    },
  };
}

/** Carries a session over a Connect, gRPC or gRPC-Web stream: reads on the side, yields what the session sends. */
async function* carry(
  hub: Hub,
  requests: AsyncIterable<ConnectRequest>,
  context: HandlerContext,
): AsyncGenerator<ConnectResponse> {
  let session: Session | undefined;
  const link = openLink({
    signal: context.signal,
    onOverflow: () => session?.close("slow_reader"),
  });
  session = hub.begin(principalOf(context), {
    prepare: (message) => link.prepare(message),
    send: (message) => link.send(message),
    end(error) {
      link.end(error);
      cutLater(context.values, endGraceMs);
    },
  });
  const gone = () => session.close("stream_broken");
  context.signal.addEventListener("abort", gone, { once: true });
  void read(session, requests);
  try {
    yield* link.messages();
  } finally {
    context.signal.removeEventListener("abort", gone);
    session.close("stream_broken");
  }
}

/** Feeds the session until the device's side ends. What the transport has against a message ends the stream with it. */
async function read(session: Session, requests: AsyncIterable<ConnectRequest>): Promise<void> {
  try {
    for await (const request of requests) {
      await session.receive(request);
      if (session.state === "closed") return;
    }
    session.left();
  } catch (error) {
    session.failed(error);
  }
}
