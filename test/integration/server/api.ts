/** The services of people and services, on a real port, over the scheduler's real functions. */

import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import type { DescService } from "@bufbuild/protobuf";
import { type Client, type ConnectRouter, createClient, type ServiceImpl } from "@connectrpc/connect";
import { connectNodeAdapter, createGrpcTransport } from "@connectrpc/connect-node";
import { EventService } from "#gen/pinion/v1/event_pb.js";
import { FleetService } from "#gen/pinion/v1/fleet_pb.js";
import { TokenService } from "#gen/pinion/v1/token_pb.js";
import { WatcherService } from "#gen/pinion/v1/watcher_pb.js";
import { startLoop } from "../../../src/scheduler/loop.ts";
import { createGuard, type Guard } from "../../../src/server/access/guard.ts";
import { interceptorChain } from "../../../src/server/access/interceptors/chain.ts";
import { peerValues } from "../../../src/server/access/peer.ts";
import { requireRules } from "../../../src/server/access/rules.ts";
import { createStreams, type Streams } from "../../../src/server/access/streams.ts";
import { type EventAnnouncer, type EventFeed, eventService } from "../../../src/server/rpc/events.ts";
import { fleetService } from "../../../src/server/rpc/fleet.ts";
import { tokenService } from "../../../src/server/rpc/tokens.ts";
import { watcherService } from "../../../src/server/rpc/watchers.ts";
import { createQuotas } from "../../../src/store/people/orgs/quotas.ts";
import type { Db } from "../../../src/store/pg/database.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { surroundings } from "../../support/surroundings.ts";

export type Api = {
  url: string;
  guard: Guard;
  /** Checked on the test's request, or every `recheckMs`. */
  streams: Streams;
  /** The log, one JSON object per line. */
  logged: Record<string, unknown>[];
  /** Tokens announced as revoked, and streams announced to be drained. */
  rung: { revoked: string[]; disconnected: { deviceId: string; reason: string }[] };
  /** Wakes the watchers of an org's events. */
  wake(orgId: string): void;
  as(secret: string | undefined): {
    watchers: Client<typeof WatcherService>;
    fleet: Client<typeof FleetService>;
    tokens: Client<typeof TokenService>;
    events: Client<typeof EventService>;
    client<S extends DescService>(service: S): Client<S>;
  };
  stop(): Promise<void>;
};

export async function startApi(
  db: Db,
  options: {
    recheckMs?: number;
    trustedProxies?: number;
    more?: { service: DescService; impl: Partial<ServiceImpl<DescService>> }[];
  } = {},
): Promise<Api> {
  const logged: Record<string, unknown>[] = [];
  const log = createLogger({
    level: "debug",
    name: "test",
    destination: { write: (line: string) => void logged.push(JSON.parse(line)) },
  });
  const guard = createGuard({ db, log });
  const streams = createStreams({ db });
  const looks = startLoop({
    name: "stream-tokens",
    log,
    async pass() {
      await streams.endExpired();
      return options.recheckMs ?? 60_000;
    },
  });
  const rung: Api["rung"] = { revoked: [], disconnected: [] };
  const feed = createEventFeed();
  requireRules([WatcherService, FleetService, TokenService, EventService]);
  const server = http2.createServer(
    connectNodeAdapter({
      interceptors: interceptorChain({ guard, log, streams, db }),
      contextValues: (request) =>
        peerValues(request, { trustedProxies: options.trustedProxies ?? 0, publicUrl: undefined }),
      readMaxBytes: 4 * 1024 * 1024,
      routes(router) {
        serve(router, { db, rung, feed, guard });
        for (const { service, impl } of options.more ?? []) router.service(service, impl);
      },
    }),
  );
  const sessions = new Set<http2.ServerHttp2Session>();
  server.on("session", (session) => {
    sessions.add(session);
    session.on("close", () => sessions.delete(session));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  return {
    ...{ url, guard, streams, logged, rung },
    wake: feed.eventsAppended,
    as: (secret) => clientsOf(url, secret),
    async stop() {
      await looks.stop();
      for (const session of sessions) session.destroy();
      await new Promise((resolve) => server.close(resolve));
      await guard.close();
    },
  };
}

/** The events' feed of one replica: an announcement wakes the org's watchers at once. */
function createEventFeed(): EventFeed & EventAnnouncer {
  const subscribers = new Map<string, Set<() => void>>();
  return {
    eventsAppended: (orgId) => subscribers.get(orgId)?.forEach((call) => void call()),
    watchOrg: () => () => {},
    subscribe(orgId, wake) {
      const wakes = subscribers.get(orgId) ?? new Set();
      subscribers.set(orgId, wakes.add(wake));
      return () => wakes.delete(wake);
    },
  };
}

function serve(
  router: ConnectRouter,
  { db, rung, feed, guard }: Pick<Api, "rung" | "guard"> & { db: Db; feed: EventFeed & EventAnnouncer },
): void {
  const { authCache } = guard;
  const doorbell = {
    devicesChanged: () => {},
    revoke: (tokenId: string) => void rung.revoked.push(tokenId),
    disconnect: (stream: { deviceId: string; reason: string }) => void rung.disconnected.push(stream),
  };
  const quotas = createQuotas({ runs: 1e5, watchers: 1e5, devices: 1e5, tokens: 1e5, turns: 1e4 });
  router.service(WatcherService, watcherService({ db, surroundings, feed, intervalMsMin: 1_000, quotas }));
  router.service(
    FleetService,
    fleetService({
      ...{ db, doorbell, surroundings, feed, authCache, ttlMs: 60_000, cell: "" },
      deviceLogs: { ask: () => Promise.reject(new Error("no device is connected")) },
    }),
  );
  router.service(TokenService, tokenService({ db, doorbell, feed, authCache, cell: "" }));
  router.service(EventService, eventService({ db, feed }));
}

/** Clients of a caller with a token, or without one. */
function clientsOf(url: string, secret: string | undefined): ReturnType<Api["as"]> {
  const transport = createGrpcTransport({
    baseUrl: url,
    interceptors: [
      (next) => (request) => {
        if (secret) request.header.set("authorization", `Bearer ${secret}`);
        return next(request);
      },
    ],
  });
  const client = <S extends DescService>(service: S) => createClient(service, transport);
  return {
    watchers: client(WatcherService),
    fleet: client(FleetService),
    tokens: client(TokenService),
    events: client(EventService),
    client,
  };
}
