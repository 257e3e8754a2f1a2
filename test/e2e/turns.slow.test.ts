/**
 * Turns with real processes: a worker and a replica that are killed, and a worker that is stopped
 * (SIGSTOP).
 */
import { existsSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createClients, type Turn, TurnStatus, waitForTurn } from "@pinion/client";
import { expect, test } from "vitest";
import { useDatabase } from "../support/database.ts";
import { eventually, type PinionProcess, startPinion, temporaryDirectory } from "../support/processes.ts";
import { ownerToken } from "../support/server.ts";
import { fleetToken } from "../support/worker.ts";

const database = useDatabase();
const ttlMs = 3_000;

/**
 * Replicas and workers as processes; an agent that reports its start, and answers when the test
 * releases it.
 */
async function startFleet() {
  const directory = await temporaryDirectory();
  const token = await ownerToken(database.url);
  const file = (name: string) => join(directory, name);

  async function startReplica() {
    const args = ["serve", "--json", "--port", "0", "--data", file(`server-${Math.random()}`)];
    const server = startPinion(args, {
      PINION_HEARTBEAT_INTERVAL_MS: "500",
      PINION_HEARTBEAT_TTL_MS: String(ttlMs),
      PINION_REAP_INTERVAL_MS: "200",
      DATABASE_URL: database.url,
    });
    const { url } = JSON.parse(await server.line(/"url"/)) as { url: string };
    return { server, url, clients: createClients({ url, token }) };
  }

  const replica = await startReplica();
  await writeFile(file("token"), `${(await fleetToken(replica.clients)).secret}\n`);
  await writeFile(
    file("agent.sh"),
    `cat > /dev/null
touch ${directory}/begun-$PINION_MESSAGE_ID-$WORKER
while [ ! -e ${directory}/go-$PINION_MESSAGE_ID ]; do sleep 0.05; done
[ -n "$PINION_SNAPSHOT_IN" ] && cat "$PINION_SNAPSHOT_IN"
printf "$PINION_MESSAGE_ID by $WORKER;" | tee -a "$PINION_SNAPSHOT_OUT"
`,
  );
  return {
    ...replica,
    startReplica,
    async startWorker(name: string, url = replica.url): Promise<PinionProcess> {
      const home = file(name);
      await mkdir(home, { recursive: true });
      const executor = `{ command = ["sh", "${file("agent.sh")}"], set_env = { WORKER = "${name}" } }`;
      await writeFile(
        join(home, "worker.toml"),
        `[device]\ndefault_executor = "agent"\n[executors]\nagent = ${executor}\n`,
      );
      const worker = startPinion([
        ...["worker", "--json", "--url", url, "--token-file", file("token"), "--label", name],
        ...["--state-dir", join(home, "state"), "--config", join(home, "worker.toml")],
        ...["--backoff-max", "500ms", "--stop-grace", "10ms"],
      ]);
      await worker.line(/"connected"/);
      return worker;
    },
    async say(messageId: string): Promise<Turn> {
      const { turn } = await replica.clients.turns.startTurn({ userId: "ada", messageId, input: messageId });
      return turn!;
    },
    begun: (messageId: string, worker: string) =>
      eventually(() => existsSync(file(`begun-${messageId}-${worker}`)) || undefined, `${worker} to begin`),
    release: (messageId: string) => writeFile(file(`go-${messageId}`), ""),
  };
}

const running = (clients: ReturnType<typeof createClients>, { id }: Turn) =>
  eventually(
    async () =>
      (await clients.turns.getTurn({ turnId: id })).turn!.status === TurnStatus.RUNNING || undefined,
    "the turn to run",
  );

test("a worker that is killed mid-turn: its turn ends at once, and the next message is answered by another", async () => {
  const { clients, startWorker, say, begun, release } = await startFleet();
  const doomed = await startWorker("doomed");
  const turn = await say("m1");
  await begun("m1", "doomed");
  await running(clients, turn);
  const next = await say("m2");
  await startWorker("heir");
  const over = waitForTurn(clients, turn.id);
  const killedAt = performance.now();
  await doomed.kill("SIGKILL");
  expect(await over).toMatchObject({
    status: TurnStatus.FAILED,
    isRetryable: true,
    reason: "worker lost: its stream broke",
  });
  // The reason tells the broken stream from the end of the TTL; the time excludes a hang.
  expect(performance.now() - killedAt).toBeLessThan(4 * ttlMs);
  await begun("m2", "heir");
  await release("m2");
  expect(await waitForTurn(clients, next.id)).toMatchObject({ reply: "m2 by heir;", snapshotVersion: 1n });
}, 60_000);

test("a worker that stands still past its lease and comes back: it is aborted, and leaves no snapshot", async () => {
  const { clients, startWorker, say, begun, release } = await startFleet();
  const paused = await startWorker("paused");
  const turn = await say("m1");
  await begun("m1", "paused");
  await running(clients, turn);
  paused.child.kill("SIGSTOP");
  const next = await say("m2");
  await startWorker("heir");
  expect(await waitForTurn(clients, turn.id)).toMatchObject({ status: TurnStatus.FAILED, isRetryable: true });
  await begun("m2", "heir");
  // The program of the lost turn ends now, and its worker has a reply that is no longer needed.
  await release("m1");
  paused.child.kill("SIGCONT");
  await paused.line(/"(aborted|acknowledged|cancelled)"/);
  await release("m2");
  expect(await waitForTurn(clients, next.id)).toMatchObject({ reply: "m2 by heir;", snapshotVersion: 1n });
  const { snapshot } = await clients.turns.getConversation({
    conversationId: turn.conversationId,
    includeSnapshot: true,
  });
  expect(Buffer.from(snapshot).toString()).toBe("m2 by heir;");
  expect((await clients.turns.getTurn({ turnId: turn.id })).turn).toMatchObject({ reply: "", attempt: 1 });
}, 60_000);

test("a replica and its worker are killed: the other replica's sweep ends the turn by its deadline", async () => {
  const { startReplica, startWorker, say, begun, release, clients } = await startFleet();
  const other = await startReplica();
  const doomed = await startWorker("doomed", other.url);
  const turn = await say("m1");
  await begun("m1", "doomed");
  await running(clients, turn);
  // The replica first: no process is left to notice the broken stream of the worker.
  await other.server.kill("SIGKILL");
  await doomed.kill("SIGKILL");
  const killedAt = performance.now();
  const ended = await waitForTurn(clients, turn.id);
  expect(ended).toMatchObject({ status: TurnStatus.FAILED, isRetryable: true });
  expect(ended.reason).toMatch(/^worker lost: (no heartbeat for the turn since|it never beat)/);
  expect(performance.now() - killedAt).toBeLessThan(4 * ttlMs);
  const next = await say("m2");
  await startWorker("heir");
  await begun("m2", "heir");
  await release("m2");
  expect(await waitForTurn(clients, next.id)).toMatchObject({ status: TurnStatus.COMPLETED });
}, 60_000);
