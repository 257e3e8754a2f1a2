import { create } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient, type HandlerContext, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { sql } from "kysely";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { DeviceService, ListMyWatchersResponseSchema } from "#gen/pinion/v1/device_pb.js";
import { EventService } from "#gen/pinion/v1/event_pb.js";
import { FleetService } from "#gen/pinion/v1/fleet_pb.js";
import { TokenKind, TokenService } from "#gen/pinion/v1/token_pb.js";
import { WatcherService } from "#gen/pinion/v1/watcher_pb.js";
import { principalOf } from "../../../../src/server/access/principal.ts";
import * as tokens from "../../../../src/store/people/credentials/tokens.ts";
import { newToken } from "../../../../src/values/ids.ts";
import { useDatabase } from "../../../support/database.ts";
import { addDevice, addTenant, type Tenant } from "../../../support/tenants.ts";
import { type Api, startApi } from "../api.ts";

const database = useDatabase();
let api: Api;
let tenant: Tenant;

beforeEach(async () => {
  tenant = await addTenant(database.db, "acme");
  api = await startApi(database.db, {
    recheckMs: 20,
    more: [
      {
        service: DeviceService,
        impl: {
          listMyWatchers: (_request: unknown, context: HandlerContext) => {
            expect(principalOf(context).deviceId).toBeTruthy();
            return create(ListMyWatchersResponseSchema);
          },
        } as never,
      },
    ],
  });
});
afterEach(() => api.stop());

function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "ok",
    (error) => Code[ConnectError.from(error).code] ?? "?",
  );
}

test("no token, another scheme, a malformed or an unknown token: unauthenticated", async () => {
  const call = (header?: string) => {
    const withHeader: Interceptor = (next) => (request) => {
      if (header) request.header.set("authorization", header);
      return next(request);
    };
    const transport = createGrpcTransport({ baseUrl: api.url, interceptors: [withHeader] });
    return codeOf(createClient(WatcherService, transport).listWatchers({}));
  };
  expect(await call()).toBe("Unauthenticated");
  expect(await call(`Basic ${tenant.secret}`)).toBe("Unauthenticated");
  expect(await call("Bearer nonsense")).toBe("Unauthenticated");
  expect(await call(`Bearer ${newToken("pat")}`)).toBe("Unauthenticated");
  expect(await call(`bearer ${tenant.secret}`)).toBe("ok");
});

test("a token with a wrong checksum is refused without a question to the database", async () => {
  const { secret } = tenant;
  const mistyped = secret.slice(0, -1) + (secret.endsWith("0") ? "1" : "0");
  await database.database.close();
  await expect(api.guard.authenticate(`Bearer ${mistyped}`)).rejects.toMatchObject({
    reason: "unauthenticated",
  });
  await expect(api.guard.authenticate(`Bearer ${newToken("pat")}`)).rejects.not.toMatchObject({
    reason: "unauthenticated",
  });
});

test("an expired token is refused by the database's clock, also if it expires while it is remembered", async () => {
  const { db } = database;
  const { token, secret } = await tokens.issue(db, {
    orgId: "acme",
    kind: "svc",
    label: "short",
    scopes: ["read"],
    expiresInMs: 60_000,
  });
  await sql`update token set expires_at = now() - interval '1 second' where id = ${token.id}`.execute(db);
  expect(await codeOf(api.as(secret).watchers.listWatchers({}))).toBe("Unauthenticated");
  await sql`update token set expires_at = clock_timestamp() + interval '300 ms' where id = ${token.id}`.execute(
    db,
  );
  expect(await codeOf(api.as(secret).watchers.listWatchers({}))).toBe("ok");
  // Far less than the five seconds of the lookup's cache.
  await expect
    .poll(() => codeOf(api.as(secret).watchers.listWatchers({})), { timeout: 3_000 })
    .toBe("Unauthenticated");
});

test("a token in use is looked up again ahead of the end of its last lookup, and nobody waits for it", async () => {
  const header = `Bearer ${tenant.secret}`;
  const elapsed = performance.now.bind(performance);
  let later = 0;
  const clock = vi.spyOn(performance, "now").mockImplementation(() => elapsed() + later);
  try {
    const { tokenId } = await api.guard.authenticate(header);
    later = 4_000;
    await api.guard.authenticate(header);
    await expect
      .poll(() => {
        later = 6_000;
        const found = api.guard.findKnown(header);
        later = 4_000;
        return found?.tokenId;
      })
      .toBe(tokenId);
    // One that was revoked in the meantime, unheard of, is no good after that lookup.
    await database.db
      .updateTable("token")
      .set({ revoked_at: sql`now()` })
      .where("id", "=", tokenId)
      .execute();
    later = 8_000;
    await api.guard.authenticate(header);
    await expect.poll(() => codeOf(api.guard.authenticate(header))).not.toBe("ok");
  } finally {
    clock.mockRestore();
  }
});

test("a revoked token is refused at once where it was revoked, and its streams are announced", async () => {
  const mine = api.as(tenant.secret);
  const { token, secret } = await mine.tokens.createToken({
    kind: TokenKind.SVC,
    label: "ci",
    scopes: ["read", "write"],
  });
  expect(await codeOf(api.as(secret).watchers.listWatchers({}))).toBe("ok");
  const { token: revoked } = await mine.tokens.revokeToken({ tokenId: token!.id });
  expect(revoked!.revokedAt).toBeDefined();
  expect(await codeOf(api.as(secret).watchers.listWatchers({}))).toBe("Unauthenticated");
  expect(api.rung.revoked).toEqual([token!.id]);
  // A second time changes nothing.
  const { token: again } = await mine.tokens.revokeToken({ tokenId: token!.id });
  expect(again).toEqual(revoked);
});

test("an open stream of events ends when its token is revoked", async () => {
  const mine = api.as(tenant.secret);
  const { token, secret } = await mine.tokens.createToken({
    kind: TokenKind.SVC,
    label: "web",
    scopes: ["read"],
  });
  let ended: unknown;
  try {
    for await (const _ of api.as(secret).events.watchEvents({})) {
      await mine.tokens.revokeToken({ tokenId: token!.id });
    }
  } catch (error) {
    ended = error;
  }
  expect(ended).toMatchObject({ code: Code.Unauthenticated });
});

test("admin brings write, write brings read, and nothing brings what is above it", async () => {
  const { db } = database;
  const { deviceId } = await addDevice(db, tenant);
  const outcome = async (scopes: string[]) => {
    const { secret } = await tokens.issue(db, { orgId: "acme", kind: "svc", label: "x", scopes });
    const { watchers, fleet } = api.as(secret);
    return [
      await codeOf(watchers.listWatchers({})),
      await codeOf(fleet.createJoinCode({})),
      // A call about another person's device, for which write alone is not enough.
      await codeOf(fleet.deleteDevice({ deviceId })),
    ];
  };
  expect(await outcome(["fleet:run"])).toEqual(["PermissionDenied", "PermissionDenied", "PermissionDenied"]);
  expect(await outcome(["read"])).toEqual(["ok", "PermissionDenied", "PermissionDenied"]);
  expect(await outcome(["write"])).toEqual(["ok", "ok", "PermissionDenied"]);
  expect(await outcome(["admin"])).toEqual(["ok", "ok", "ok"]);
  // A scope reserved for devices does not make a service a device.
  expect(await outcome(["device:run"])).toEqual(["PermissionDenied", "PermissionDenied", "PermissionDenied"]);
});

test("a device's token reaches the device's rpcs and no other; nobody else's token reaches those", async () => {
  const { db } = database;
  const device = await addDevice(db, tenant);
  const asDevice = api.as(device.secret);
  expect(await codeOf(asDevice.client(DeviceService).listMyWatchers({}))).toBe("ok");
  expect(await codeOf(asDevice.watchers.listWatchers({}))).toBe("PermissionDenied");
  expect(await codeOf(asDevice.tokens.listTokens({}))).toBe("PermissionDenied");
  expect(await codeOf(api.as(tenant.secret).client(DeviceService).listMyWatchers({}))).toBe(
    "PermissionDenied",
  );
  const { secret } = await tokens.issue(db, {
    orgId: "acme",
    kind: "svc",
    label: "x",
    scopes: ["device:run"],
  });
  expect(await codeOf(api.as(secret).client(DeviceService).listMyWatchers({}))).toBe("PermissionDenied");
});

test("a token makes and ends only tokens that can do no more than itself", async () => {
  const { db } = database;
  const { secret } = await tokens.issue(db, {
    orgId: "acme",
    kind: "pat",
    label: "w",
    scopes: ["write"],
    userId: tenant.userId,
  });
  const writer = api.as(secret).tokens;
  const make = (scopes: string[]) => writer.createToken({ kind: TokenKind.PAT, label: "x", scopes });
  expect(await codeOf(make(["read", "write"]))).toBe("ok");
  expect(await codeOf(make(["admin"]))).toBe("PermissionDenied");
  expect(await codeOf(make(["fleet:run"]))).toBe("PermissionDenied");
  expect(await codeOf(writer.revokeToken({ tokenId: tenant.tokenId }))).toBe("PermissionDenied");
  expect(
    await codeOf(
      api
        .as(tenant.secret)
        .tokens.createToken({ kind: TokenKind.SVC, label: "worker", scopes: ["fleet:run"] }),
    ),
  ).toBe("ok");
});

test("the last use of a token is written in batches", async () => {
  const { db } = database;
  const used = async () => (await tokens.find(db, { orgId: "acme", tokenId: tenant.tokenId }))!.last_used_at;
  for (let i = 0; i < 5; i++) await api.guard.authenticate(`Bearer ${tenant.secret}`);
  expect(await used()).toBeNull();
  await api.guard.flush();
  expect(await used()).toBeInstanceOf(Date);
});

test("a call is logged with its rpc, code, org and actor, and never with its token", async () => {
  await api.as(tenant.secret).watchers.listWatchers({});
  await codeOf(api.as(tenant.secret).watchers.getWatcher({ watcherId: "none" }));
  expect(api.logged.filter((line) => line.msg === "call")).toMatchObject([
    {
      rpc: "pinion.v1.WatcherService/ListWatchers",
      code: "ok",
      orgId: "acme",
      actor: `user:${tenant.userId}`,
    },
    { rpc: "pinion.v1.WatcherService/GetWatcher", code: "NotFound", orgId: "acme" },
  ]);
  expect(JSON.stringify(api.logged)).not.toContain(tenant.secret);
});

test("every rpc of every service here turns an anonymous call down", async () => {
  const anonymous = api.as(undefined);
  for (const service of [WatcherService, FleetService, TokenService, EventService]) {
    const client = anonymous.client(service) as unknown as Record<string, (request: object) => unknown>;
    for (const method of service.methods) {
      const answer = client[method.localName]!({});
      const outcome = method.methodKind === "unary" ? (answer as Promise<unknown>) : drain(answer);
      expect([method.name, await codeOf(outcome)]).toEqual([method.name, "Unauthenticated"]);
    }
  }
});

async function drain(stream: unknown): Promise<void> {
  for await (const _ of stream as AsyncIterable<unknown>);
}
