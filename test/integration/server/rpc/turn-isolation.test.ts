/**
 * Conversations of two orgs with the same agent id and the same user id: no rpc of one reaches the
 * other.
 */
import { createClients } from "@pinion/client";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { CompletionVerdict } from "#gen/pinion/v1/device_pb.js";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import { TurnStatus } from "#gen/pinion/v1/turn_pb.js";
import * as tokens from "../../../../src/store/people/credentials/tokens.ts";
import { useDatabase } from "../../../support/database.ts";
import { answer, getTurn, startTurn, watchTurn } from "../../../support/talk.ts";
import { addTenant } from "../../../support/tenants.ts";
import { takeOn, useReplicas } from "../../../support/work.ts";
import { connectWorker, type FleetToken, workerIdentity } from "../../../support/worker.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "replica");

/** The protocols of the API: the web page uses the last. */
const doors = ["connect", "grpc", "grpc-web"] as const;
type Door = (typeof doors)[number];

let secrets: { acme: string; globex: string };
const opened: ReturnType<typeof createClients>[] = [];
beforeAll(async () => {
  const [acme, globex] = [await addTenant(database.db, "acme"), await addTenant(database.db, "globex")];
  secrets = { acme: acme.secret, globex: globex.secret };
});
afterAll(() => {
  for (const clients of opened) clients.close();
});

function clientsOf(org: keyof typeof secrets, protocol: Door = "connect") {
  const clients = createClients({ url: replicas.replica.url, token: secrets[org], protocol });
  opened.push(clients);
  return clients;
}

async function fleetTokenOf(org: keyof typeof secrets): Promise<FleetToken> {
  const { token, secret } = await clientsOf(org).tokens.createToken({
    label: "fleet",
    kind: TokenKind.SVC,
    scopes: ["fleet:run"],
  });
  return { id: token!.id, secret };
}

/** An answered turn of a person at acme, with a snapshot, and a second turn that is running. */
async function talkInAcme(userId: string) {
  const clients = clientsOf("acme");
  const stream = await connectWorker(replicas.replica.url, workerIdentity(await fleetTokenOf("acme")));
  const answered = await startTurn(clients, { userId, messageId: "m1", input: "the secret is 42" });
  await answer(stream, await takeOn(stream), "I keep 42", "snapshot: 42");
  const running = await startTurn(clients, { userId, messageId: "m2", input: "and 43" });
  const assignment = await takeOn(stream);
  return { clients, stream, answered, running, assignment };
}

const reasonOf = (call: Promise<unknown>) =>
  call.then(
    () => "none",
    (error: { reason?: string }) => error.reason ?? String(error),
  );

test.each(doors)(
  "through %s, another org's turns and conversations are not there, by whatever name",
  async (door) => {
    const { stream, answered, running, assignment } = await talkInAcme(`ada-${door}`);
    const { turns } = clientsOf("globex", door);
    const { conversationId } = answered;
    for (const turnId of [answered.id, running.id]) {
      expect(await reasonOf(turns.getTurn({ turnId }))).toBe("not_found");
      expect(await reasonOf(turns.cancelTurn({ turnId }))).toBe("not_found");
      const watching = (async () => {
        for await (const update of turns.watchTurn({ turnId })) throw new Error(`saw ${update.update.case}`);
      })();
      expect(await reasonOf(watching)).toBe("not_found");
    }
    expect(await reasonOf(turns.getConversation({ conversationId, includeSnapshot: true }))).toBe(
      "not_found",
    );
    expect(await reasonOf(turns.deleteConversation({ conversationId }))).toBe("not_found");
    expect((await turns.listTurns({ conversationId })).turns).toEqual([]);
    expect((await turns.listConversations({})).conversations.map(({ id }) => id)).not.toContain(
      conversationId,
    );
    // The conversation is not resumed either: neither by its name, which ends in the other org's
    // name, nor by the same person and agent.
    const said = { messageId: "m1", input: "what is the secret?" };
    expect(await reasonOf(turns.startTurn({ ...said, conversationId }))).toBe("invalid_argument");
    await answer(stream, assignment, "ok");
    stream.end();
  },
);

test("the same agent, person and message id in two orgs are two turns, two conversations and two workers' work", async () => {
  const { stream, answered, assignment } = await talkInAcme("bob");
  const globex = clientsOf("globex");
  const turn = await startTurn(globex, { userId: "bob", messageId: "m1", input: "what is the secret?" });
  expect(turn).toMatchObject({
    agentId: answered.agentId,
    conversationId: `${answered.agentId}_bob_globex`,
    status: TurnStatus.PENDING,
  });
  // Acme's worker has a free slot after its turn, and never receives the other org's turn.
  await answer(stream, assignment, "ok", "snapshot: 43");
  await stream.beat([], 2n);
  expect(stream.waiting("assignment")).toEqual([]);

  const theirs = await connectWorker(replicas.replica.url, workerIdentity(await fleetTokenOf("globex")));
  const given = await takeOn(theirs);
  expect(given).toMatchObject({
    workId: turn.id,
    turn: { input: "what is the secret?", snapshotVersion: 0n },
  });
  expect(given.turn!.snapshot).toHaveLength(0);
  // The report of one org's worker on the other org's attempt, with the right token, matches no
  // attempt.
  expect(await answer(stream, given, "stolen", "stolen")).toBe(CompletionVerdict.UNKNOWN);
  // Accepts are stored in batches.
  await vi.waitFor(async () => expect((await getTurn(globex, turn)).status).toBe(TurnStatus.RUNNING));
  const watched = watchTurn(globex, turn);
  await answer(theirs, given, "I do not know", "snapshot: globex");
  await watched.over;
  expect(watched.ends).toMatchObject([{ reply: "I do not know" }]);
  const snapshots = await Promise.all(
    (["acme", "globex"] as const).map(async (org) => {
      const conversationId = `${answered.agentId}_bob_${org}`;
      const { snapshot } = await clientsOf(org).turns.getConversation({
        conversationId,
        includeSnapshot: true,
      });
      return Buffer.from(snapshot).toString();
    }),
  );
  expect(snapshots).toEqual(["snapshot: 43", "snapshot: globex"]);
  stream.end();
  theirs.end();
});

test("an org without a default agent does not fall back on another org's agent of that name", async () => {
  await database.db.insertInto("org").values({ id: "bare", name: "bare" }).execute();
  const { secret } = await tokens.issue(database.db, {
    orgId: "bare",
    kind: "svc",
    label: "x",
    scopes: ["read", "write"],
  });
  const clients = createClients({ url: replicas.replica.url, token: secret });
  opened.push(clients);
  expect(await reasonOf(startTurn(clients))).toBe("not_found");
  expect(await reasonOf(startTurn(clients, { agentId: "pinion-default" }))).toBe("not_found");
  expect((await clients.turns.listConversations({})).conversations).toEqual([]);
});
