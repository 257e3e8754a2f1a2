/** A real replica on a test's database, and its ops clients. */

import { randomBytes } from "node:crypto";
import { createClients } from "@pinion/client";
import { afterAll, beforeAll, onTestFinished } from "vitest";
import { replicaConfig } from "../../src/config.ts";
import { type Replica, startReplica } from "../../src/replica/replica.ts";
import * as tokens from "../../src/store/people/credentials/tokens.ts";
import { ensureBootstrap } from "../../src/store/people/orgs/orgs.ts";
import { openDatabase } from "../../src/store/pg/database.ts";
import { createLogger } from "../../src/telemetry/log.ts";
import { findOpened } from "./database.ts";

/**
 * Short enough for a test to wait for, long enough not to fire by themselves on a busy machine: a
 * device driven by hand does not beat while its test is busy with another. A test in which silence
 * ends something names a TTL of its own.
 */
const timers = {
  PINION_HEARTBEAT_INTERVAL_MS: "1000",
  PINION_HEARTBEAT_TTL_MS: "60000",
  PINION_REAP_INTERVAL_MS: "200",
  PINION_SWEEP_INTERVAL_MS: "15000",
  PINION_SHUTDOWN_MS: "4000",
  // Tests wait for the next second, not for ten.
  PINION_INTERVAL_MIN: "1s",
};

let deviceStreams: "bare" | "connect" = "bare";

/** Selects the server of device streams for all replicas of this test file. */
export function useDeviceStreams(kind: typeof deviceStreams): void {
  deviceStreams = kind;
  // The worker's next file has the default again.
  afterAll(() => {
    deviceStreams = "bare";
  });
}

/** The server of device streams of this test file. */
export const deviceStreamsOfFile = () => deviceStreams;

export type TestReplica = Replica & {
  clients: ReturnType<typeof createClients>;
  /** The owner's token: read, write, admin. */
  token: string;
};

/**
 * Starts a replica on a database, with settings in the form of environment variables; stops the
 * replica after the test. Several replicas on one database form one service.
 */
export async function startTestReplica(
  databaseUrl: string,
  env: Record<string, string> = {},
): Promise<TestReplica> {
  const replica = await openTestReplica(databaseUrl, env);
  onTestFinished(() => replica.stop());
  return replica;
}

/**
 * Like {@link startTestReplica}, for a replica that serves several tests; the caller stops the
 * replica.
 */
export async function openTestReplica(
  databaseUrl: string,
  env: Record<string, string> = {},
): Promise<TestReplica> {
  const token = await ownerToken(databaseUrl);
  const replica = await startReplica(
    replicaConfig({
      DATABASE_URL: databaseUrl,
      PINION_PORT: "0",
      PINION_HOST: "127.0.0.1",
      PINION_DEVICE_STREAMS: deviceStreams,
      ...timers,
      ...env,
    }),
    // Few tests need all the statements of a run; the processes of e2e and chaos start warm.
    { log: createLogger({ name: "test", level: process.env.PINION_TEST_LOG ?? "silent" }), isCold: true },
  );
  return { ...replica, token, clients: createClients({ url: replica.url, token }) };
}

/**
 * A replica for all tests of a file, on the file's database (`per: "file"`); stopped after the last
 * test. Available within tests.
 */
export function useReplica(database: { url: string }, env: Record<string, string> = {}) {
  let replica: TestReplica | undefined;
  beforeAll(async () => {
    replica = await openTestReplica(database.url, env);
  });
  afterAll(() => replica?.stop());
  return (): TestReplica => {
    if (!replica) throw new Error("the replica is there within tests, not while tests are collected");
    return replica;
  };
}

/**
 * A replica that serves several tests, as one test sees it: with the clients and the token of the
 * owner of a new org, in which nothing is yet.
 */
export async function inNewOrg(replica: TestReplica): Promise<TestReplica & { orgId: string }> {
  const orgId = `org-${randomBytes(4).toString("hex")}`;
  const { secret } = await replica.clients.orgs.createOrg({
    orgId,
    name: orgId,
    ownerEmail: `owner@${orgId}.example`,
  });
  return { ...asSeenWith(replica, secret), orgId };
}

/** Replicas of one service, each as {@link inNewOrg} shows a replica, with the same org's owner. */
export async function inOneNewOrg<Name extends string>(
  replicas: Readonly<Record<Name, TestReplica>>,
): Promise<Record<Name, TestReplica> & { orgId: string }> {
  const [first, ...others] = Object.entries<TestReplica>(replicas) as [Name, TestReplica][];
  if (!first) throw new Error("an org is made through a replica");
  const { orgId, ...seen } = await inNewOrg(first[1]);
  const all = [[first[0], seen], ...others.map(([name, other]) => [name, asSeenWith(other, seen.token)])];
  return { ...(Object.fromEntries(all) as Record<Name, TestReplica>), orgId };
}

/** A replica with the clients of a token. */
export function asSeenWith(replica: TestReplica, token: string): TestReplica {
  const clients = createClients({ url: replica.url, token });
  onTestFinished(() => clients.close());
  return { ...replica, token, clients };
}

/** A token of the local org's owner, who is created if missing. */
export async function ownerToken(databaseUrl: string): Promise<string> {
  const already = findOpened(databaseUrl);
  const database = already ?? openDatabase({ url: databaseUrl, poolMax: 1, applicationName: "pinion test" });
  try {
    const bootstrap = await ensureBootstrap(database.db);
    if (bootstrap) return bootstrap.secret;
    const owner = await database.db
      .selectFrom("member")
      .select("user_id")
      .where("org_id", "=", "local")
      .executeTakeFirstOrThrow();
    const { secret } = await tokens.create(database.db, {
      orgId: "local",
      actor: "pinion",
      kind: "pat",
      label: "test",
      scopes: ["read", "write", "admin"],
      userId: owner.user_id,
      expiresInMs: undefined,
    });
    return secret;
  } finally {
    if (!already) await database.close();
  }
}
