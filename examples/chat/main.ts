/**
 * A chat with an agent that runs on a fleet worker: `npm run example:chat`.
 *
 * The example starts a server with an embedded PostgreSQL in a temporary directory, and a worker
 * with the program agent.mjs; then sends three messages of a conversation, and prints the replies.
 * In the middle of a fourth turn the example kills the worker. The turn ends at once with an error
 * that allows a retry. The next worker answers the next message, with the snapshot of the last
 * completed turn.
 */
import { randomUUID } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  type Clients,
  createClients,
  OutputStream,
  TokenKind,
  type Turn,
  TurnStatus,
  waitForTurn,
} from "@pinion/client";
import { type PinionCommand, startPinion } from "./process.ts";

const agentProgram = fileURLToPath(new URL("agent.mjs", import.meta.url));

/** Pieces of the fourth reply before the worker is killed. */
const piecesBeforeKill = 3;

/** Sends a message as ada and prints the reply as the reply arrives; returns the ended turn. */
async function say(clients: Clients, input: string, onPiece: () => void = () => {}): Promise<Turn> {
  process.stdout.write(`\nada:   ${input}\nagent: `);
  const { turn } = await clients.turns.startTurn({ userId: "ada", messageId: randomUUID(), input });
  let isAtLineStart = false;
  const ended = await waitForTurn(clients, turn!.id, {
    onOutput({ stream, data }) {
      if (stream !== OutputStream.STDOUT) return;
      process.stdout.write(data);
      isAtLineStart = data.at(-1) === 0x0a;
      onPiece();
    },
  });
  if (!isAtLineStart) process.stdout.write("\n");
  if (ended.status !== TurnStatus.COMPLETED) {
    const advice = ended.isRetryable ? "; it may be sent again" : "";
    process.stdout.write(`       [${TurnStatus[ended.status].toLowerCase()}: ${ended.reason}${advice}]\n`);
  }
  return ended;
}

/** Starts a worker with a service's token whose only scope is fleet:run. */
async function startWorker(directory: string, url: string): Promise<PinionCommand> {
  const worker = startPinion([
    ...["worker", "--json", "--url", url, "--token-file", join(directory, "worker-token"), "--label", "chat"],
    ...["--state-dir", join(directory, "worker"), "--config", join(directory, "worker.toml")],
  ]);
  await worker.line(/"connected"/);
  return worker;
}

async function chat(directory: string): Promise<void> {
  await using server = startPinion(["serve", "--json", "--port", "0", "--data", join(directory, "server")]);
  const started = JSON.parse(await server.line(/"url"/)) as { url: string; token_file: string };
  const { url } = started;
  const token = (await readFile(started.token_file, "utf8")).trim();
  process.stdout.write(`a server at ${url}\n`);
  const clients = createClients({ url, token });
  try {
    const { secret } = await clients.tokens.createToken({
      label: "chat worker",
      kind: TokenKind.SVC,
      scopes: ["fleet:run"],
    });
    await writeFile(join(directory, "worker-token"), `${secret}\n`, { mode: 0o600 });
    const command = JSON.stringify([process.execPath, agentProgram]);
    await writeFile(
      join(directory, "worker.toml"),
      `[device]\ndefault_executor = "chat"\n\n[executors.chat]\ncommand = ${command}\n`,
    );
    await talk(clients, () => startWorker(directory, url));
  } finally {
    clients.close();
  }
}

async function talk(clients: Clients, start: () => Promise<PinionCommand>): Promise<void> {
  await using first = await start();
  for (const message of ["my name is Ada", "I like engines", "what do you know of me?"])
    await say(clients, message);

  let pieces = 0;
  const lost = await say(clients, "tell me all of it again", () => {
    pieces += 1;
    // Like a loss of power: the worker says nothing, and hands nothing back.
    if (pieces === piecesBeforeKill) first.child.kill("SIGKILL");
  });
  if (lost.status !== TurnStatus.FAILED)
    throw new Error(`the worker was killed, but the turn is ${lost.status}`);

  await using second = await start();
  const last = await say(clients, "are you still there?");
  if (last.status !== TurnStatus.COMPLETED)
    throw new Error(`the next message was not answered: ${last.reason}`);
  void second;
}

const directory = await mkdtemp(join(tmpdir(), "pinion-chat-"));
try {
  await chat(directory);
} finally {
  await rm(directory, { recursive: true, force: true, maxRetries: 5 });
}
