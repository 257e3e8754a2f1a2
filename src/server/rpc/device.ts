import { setImmediate as immediate } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import {
  type CompleteRunRequest,
  CompleteRunRequestSchema,
  type CompleteRunResponseSchema,
  type Completion,
  type ConnectRequest,
  type ConnectResponse,
  type DeviceService,
} from "#gen/pinion/v1/device_pb.js";
import { Refusal, refuse } from "../../errors.ts";
import { trigger } from "../../scheduler/starts/triggers.ts";
import * as workers from "../../store/people/devices/workers.ts";
import type { Db } from "../../store/pg/database.ts";
import { type Incarnation, storedIn } from "../../store/pg/incarnation.ts";
import * as turnAttempts from "../../store/work/turns/turn-attempts.ts";
import * as watcherPins from "../../store/work/watchers/watcher-pins.ts";
import * as watchers from "../../store/work/watchers/watchers.ts";
import { enroll } from "../../usecases/enrolments.ts";
import type { Surroundings } from "../../usecases/surroundings.ts";
import { isUuid, withCell } from "../../values/ids.ts";
import type { Guard } from "../access/guard.ts";
import { checkMessage } from "../access/interceptors/validate.ts";
import { cutLater } from "../access/peer.ts";
import { type Principal, principalOf } from "../access/principal.ts";
import type { Hub } from "../device/hub/hub.ts";
import { incarnationMessage } from "../device/messages/messages.ts";
import { normalizeName, reportOf, verdictOf, verdictText } from "../device/messages/reports.ts";
import type { Session } from "../device/session/session.ts";
import { endGraceMs, openLink } from "../device/stream/link.ts";
import { unreadableProblem } from "../device/stream/unreadable.ts";
import { osNameOf } from "../enums.ts";
import type { Telemetry } from "../telemetry.ts";
import type { EventAnnouncer } from "./events.ts";
import { given } from "./messages/given.ts";
import { inputOf } from "./messages/input-message.ts";
import { triggeredMessage } from "./messages/triggered-message.ts";
import { watcherMessage } from "./messages/watcher-message.ts";
import { page, textKey } from "./page.ts";

interface Deps {
  db: Db;
  /** For Enroll, whose join code names the org: the call has no principal yet. */
  crossOrgDb: Db;
  hub: Hub;
  /** The database behind `db`, as far as known. */
  incarnation: () => Incarnation | undefined;
  /** For the use-cases. */
  surroundings: Surroundings;
  doorbell: { revoke(tokenId: string): void };
  feed: EventAnnouncer;
  authCache: Guard["authCache"];
  /** The name in tokens and codes; "" for none. */
  cell: string;
  telemetry: Pick<Telemetry, "acknowledged">;
}

type Served = ServiceImpl<typeof DeviceService>;

/** The rpcs of a device's daemon; src/server/device/session/session.ts handles the stream. */
export function deviceService(deps: Deps): Served {
  return {
    connect: (requests, context) => carry(deps.hub, requests, context),
    completeRun: (request, context) => complete(deps, request, principalOf(context)),
    ...watcherRpcs(deps),

    async enroll(request) {
      const { joinCode, installId, label, appVersion } = request;
      const asked = { joinCode, installId, label, appVersion, os: given(osNameOf(request.os), "os") };
      const enrolment = await enroll(deps.crossOrgDb, asked, deps.surroundings);
      for (const tokenId of enrolment.revokedTokenIds) {
        deps.authCache.forget(tokenId);
        deps.doorbell.revoke(tokenId);
      }
      const { orgId, deviceId, secret, sameLabelCount } = enrolment;
      deps.feed.eventsAppended(orgId);
      return { deviceId, orgId, token: withCell(secret, deps.cell), sameLabelCount };
    },
  };
}

/** The device's own watchers. */
function watcherRpcs(deps: Deps): Pick<Served, "triggerWatcher" | "listMyWatchers"> {
  const { db, surroundings } = deps;

  return {
    async triggerWatcher(request, context) {
      const { orgId, deviceId, actor } = principalOf(context);
      const watcher = await watcherPins.find(db, { orgId, watcher: request.watcherId });
      // R6: watchers of other devices are invisible to the device.
      if (watcher?.deviceId !== deviceId) {
        refuse("not_found", `there is no watcher "${request.watcherId}" pinned to this device`);
      }
      const asked = { orgId, actor, watcherId: watcher.id, input: inputOf(request.input) };
      return triggeredMessage(db, await trigger(db, asked, surroundings));
    },

    async listMyWatchers(request, context) {
      const { orgId, deviceId } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([textKey]),
        keyOf: (row: watchers.Watcher) => [row.slug],
        fetch: (after, limit) =>
          watchers.list(db, { orgId, limit, afterSlug: after?.[0], deviceId: deviceId! }),
      });
      return { watchers: rows.map((row) => watcherMessage(row)), nextPageToken };
    },
  };
}

/** Stores a completion as the stream would, for a device that has the result and no stream. */
async function complete(
  { db, hub, incarnation, telemetry }: Deps,
  request: CompleteRunRequest,
  { orgId, tokenId, deviceId }: Principal,
): Promise<MessageInitShape<typeof CompleteRunResponseSchema>> {
  const { completion } = request;
  if (!completion) refuse("invalid_argument", "completion: value is required", { field: "completion" });
  normalizeName(completion);
  // The attempt tells the worker among the workers of the token.
  const { workId, attemptToken } = completion;
  const isNamed = isUuid(workId) && isUuid(attemptToken);
  const executorId =
    deviceId ?? (isNamed ? await findHolder(db, { orgId, tokenId, ...completion }) : undefined);
  const violation = checkMessage(CompleteRunRequestSchema, request);
  if (violation) {
    if (executorId && isNamed) {
      const attempt = { orgId, deviceId: executorId, workId, attemptToken };
      await hub.turnDown(attempt, completion, violation.message);
    }
    refuse("invalid_argument", violation.message, { field: violation.field });
  }
  if (!executorId) refuseUnheld(completion);
  const report = reportOf({ orgId, deviceId: executorId }, completion);
  const startedAt = performance.now();
  const store = (one = report) =>
    hub.report(one).catch(async (error: unknown) => {
      if (error instanceof Refusal && error.reason === "invalid_argument") {
        await hub.turnDown(report, completion, error.message);
      }
      throw error;
    });
  const before = incarnation();
  let stored = await store();
  if (stored.verdict === "unknown") {
    const restoredId = await hub.restore({ orgId, deviceId: executorId }, completion);
    if (restoredId !== undefined) stored = await store({ ...report, workId: restoredId });
  }
  const { verdict, windowId } = stored;
  telemetry.acknowledged(report, verdict, performance.now() - startedAt);
  if (verdict === "unknown") refuse("not_found", `this device has no such attempt of ${report.workId}`);
  const by = storedIn(before, incarnation());
  return {
    ...{ verdict: verdictOf[verdict], windowId: windowId ?? "", message: verdictText[verdict] },
    ...(by ? { incarnation: incarnationMessage(by) } : {}),
  };
}

type Named = Parameters<typeof workers.findHolder>[1];

/** The worker that has, or had, the attempt of a run or a turn. */
async function findHolder(db: Db, named: Named): Promise<string | undefined> {
  return (await workers.findHolder(db, named)) ?? (await turnAttempts.findHolder(db, named));
}

function refuseUnheld({ workId, reoffer, turnReoffer }: Completion): never {
  const what = `no worker of this token has had such an attempt of ${workId}`;
  // The database may have lost the attempt, and with it which worker had the work.
  if (reoffer ?? turnReoffer)
    refuse("failed_precondition", `${what}; offer the result on the worker's stream`);
  refuse("not_found", what);
}

/**
 * Carries a session over a Connect, gRPC or gRPC-Web stream: reads requests concurrently, yields
 * the session's messages.
 */
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
    prepare: (message, frame) => link.prepare(message, frame),
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

/**
 * Messages of one stream per turn of the event loop: a window full of tiny messages would keep all
 * other streams waiting for a tenth of a second.
 */
const messagesPerTurn = 64;

/**
 * Feeds the session until the device ends its side. An error of the transport ends the stream with
 * the error.
 */
async function read(session: Session, requests: AsyncIterable<ConnectRequest>): Promise<void> {
  try {
    let handled = 0;
    for await (const request of requests) {
      await session.receive(request);
      if (session.state === "closed") return;
      handled += 1;
      if (handled % messagesPerTurn === 0) await immediate();
    }
    session.left();
  } catch (error) {
    const problem = unreadableProblem(error);
    if (problem === undefined) session.failed(error);
    else session.receiveUnreadable(problem);
  }
}
