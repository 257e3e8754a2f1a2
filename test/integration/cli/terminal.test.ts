/**
 * What every command prints on a real terminal (a pty): text and colours of other authors, and no
 * other escape sequence of theirs.
 */
import { execFileSync, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { OutputStream } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { noticeSkipped } from "../../support/notice.ts";
import { answer, startTurn } from "../../support/talk.ts";
import { startWork, takeOn, useReplicas } from "../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");
const session = fileURLToPath(new URL("../../support/terminal-session.ts", import.meta.url));

const hasPty = process.platform === "linux" && has("script", "--version");
if (!hasPty) noticeSkipped("the test of a terminal", "there is no script(1) of util-linux");

function has(program: string, ...args: string[]): boolean {
  try {
    execFileSync(program, args, { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** Everything that the commands wrote to their terminal. */
async function typed(env: Record<string, string>, commands: string[][]): Promise<string> {
  const quoted = [process.execPath, session, JSON.stringify(commands)]
    .map((word) => `'${word.replaceAll("'", "'\\''")}'`)
    .join(" ");
  const child = spawn("script", ["-qefc", quoted, "/dev/null"], {
    env: { PATH: process.env.PATH, HOME: "/nonexistent", TERM: "xterm-256color", ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const chunks: Buffer[] = [];
  for await (const chunk of child.stdout) chunks.push(chunk);
  return Buffer.concat(chunks).toString("latin1");
}

/** Sequences of other authors that are no colours, and pieces that make up more of them. */
const pieces = fc.constantFrom(
  ...[
    "\u001b]52;c;cm0gLXJm\u0007",
    "\u001b]0;owned\u001b\\",
    "\u001b]8;;http://x\u001b\\",
    "\u001b[2J",
    "\u001b[5;5H",
  ],
  ...[
    "\u001b[3A",
    "\u001b[6n",
    "\u001bc",
    "\u001bP+q\u001b\\",
    "\u001b_x\u001b\\",
    "\u001b[?1049h",
    "\u001b[>4;2m",
  ],
  ...[
    "\u009b2J",
    "\u009d0;t\u0007",
    "\u001b",
    "[",
    "]",
    "52;",
    "\u0007",
    "\b",
    "\r",
    "é",
    "word",
    "\u001b[31m",
    "\u202e",
  ],
);
const oddTexts = fc.array(pieces, { minLength: 3, maxLength: 12 }).map((parts) => `odd${parts.join("")}`);

/** The commands' own movements: a line is drawn anew, a view is cleared from its first line. */
const own = /^(\[\d*A|\[0?[JK]|\[2K|\[\?25[lh])/;

const isStrange = (character: string, before: string | undefined) => {
  const code = character.charCodeAt(0);
  // The C1 controls of 8 bits arrive as UTF-8, c2 80 to c2 9f; controls of 7 bits as they are.
  if (before === "\u00c2" && code >= 0x80 && code <= 0x9f) return true;
  return code === 0x7f || (code < 0x20 && !"\u001b\r\n\t".includes(character));
};

/** The escape sequences and controls in a text that are neither colours nor the commands' own. */
function strangeIn(text: string): string[] {
  const escapes = text
    .split("\u001b")
    .slice(1)
    .filter((after) => !/^\[[\d;:]*m/.test(after) && !own.test(after));
  const controls = [...text].filter((character, at) => isStrange(character, text[at - 1]));
  return [...escapes, ...controls].map((each) => JSON.stringify(each.slice(0, 12)));
}

test.skipIf(!hasPty)(
  "no command passes on more than text and colours, whatever labels, prompts, outputs, results and errors hold",
  { timeout: 180_000 },
  async () => {
    const { clients, url, token } = replicas.here;
    const seed = Number(process.env.PINION_TEST_SEED ?? Date.now() % 2 ** 31);
    const texts = fc.sample(oddTexts, { numRuns: 40, seed });
    let next = 0;
    const odd = () => texts[next++ % texts.length]!;

    const device = await enrolDevice(clients, odd().slice(0, 60));
    const stream = await connect(url, device, { label: odd().slice(0, 60), maxConcurrency: 2 });
    const report = async (outcome: Outcome) => {
      const run = await startWork(clients, device, { name: odd(), prompt: odd() });
      const { workId, attemptToken } = await takeOn(stream);
      const data = Buffer.from(Array.from({ length: 8 }, odd).join("\n"));
      const piece = { workId, attemptToken, sequence: 1n, stream: OutputStream.STDOUT, data };
      stream.send({ case: "output", value: piece });
      stream.send({
        case: "complete",
        value: {
          ...{
            workId,
            attemptToken,
            outcome,
            output: `${odd()}\n${odd()}`,
            reason: odd(),
            stderrTail: odd(),
          },
          ...{
            resultText: odd(),
            notes: [odd()],
            modelUsed: odd(),
            sessionId: odd(),
            stopReason: odd().slice(0, 20),
          },
          ...{ signal: odd().slice(0, 10) },
        },
      });
      await stream.next("completionAck");
      return run;
    };
    const completed = await report(Outcome.COMPLETED);
    const failed = await report(Outcome.FAILED);
    const agentId = `agent-${randomUUID().slice(0, 8)}`;
    await clients.agents.createAgent({
      agentId,
      name: odd(),
      settings: { identity: odd(), guardrails: [odd()] },
    });
    await clients.agents.updateAgentSettings({ agentId, deviceId: device.deviceId });
    const turn = await startTurn(clients, { agentId, input: odd() });
    await answer(stream, await takeOn(stream), odd());
    const going = await startWork(clients, device, { name: odd() });
    const attempt = await takeOn(stream);
    stream.send({
      case: "output",
      value: {
        ...{ workId: attempt.workId, attemptToken: attempt.attemptToken, sequence: 1n },
        ...{ stream: OutputStream.STDOUT, data: Buffer.from(texts.join("\n")) },
      },
    });
    await stream.beat([attempt]);

    const commands = [
      ...[
        ["runs", "list"],
        ["runs", "get", completed.id],
        ["runs", "get", failed.id],
        ["runs", "explain", failed.id],
      ],
      ...[
        ["runs", "watch", completed.id],
        ["runs", "watch", failed.id],
        ["live", "runs", "watch", going.id],
      ],
      ...[
        ["live", "runs", "watch"],
        ["windows", "list", completed.watcherId],
        ["watchers", "list"],
      ],
      ...[
        ["watchers", "get", completed.watcherId],
        ["turns", "list"],
        ["turns", "get", turn.id],
        ["turns", "watch", turn.id],
      ],
      ...[
        ["conversations", "list"],
        ["devices", "list"],
        ["devices", "get", device.deviceId],
        ["agents", "list"],
      ],
      ...[
        ["agents", "get", agentId],
        ["events", "list"],
        ["usage"],
        ["watchers", "get", odd()],
        ["runs", "get", odd()],
      ],
      ...[
        ["devices", "get", odd()],
        ["watchers", "create", odd(), "--prompt", "p", "--schedule", odd()],
        ["pull", "-f", "-"],
      ],
    ];
    const env = { PINION_URL: url, PINION_TOKEN: token, PINION_DATA: "/nonexistent" };
    const shown = await typed(env, commands);
    expect(shown).toContain("the end");
    expect(shown).toContain("odd");
    expect(strangeIn(shown), `PINION_TEST_SEED=${seed}`).toEqual([]);
    // The test sees what it looks for: as it is, a program's output has all of this.
    const raw = await typed(env, [["runs", "watch", completed.id, "--raw"]]);
    expect(strangeIn(raw)).not.toEqual([]);
  },
);
