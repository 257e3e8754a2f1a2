/**
 * Texts of agents that are costly to format, or odd: the replica goes on, and the message is whole.
 */
import { expect, test } from "vitest";
import { htmlOf } from "../../../../src/server/destinations/email.ts";
import { messageOf } from "../../../../src/server/destinations/message.ts";
import { slackMessage } from "../../../../src/server/destinations/slack.ts";
import type { Claimed } from "../../../../src/store/work/messages/delivery-claims.ts";
import type { Facts } from "../../../../src/store/work/messages/delivery-facts.ts";

const length = 32_000;
const repeated = (text: string, most = length) => text.repeat(Math.ceil(most / text.length)).slice(0, most);

/** Milliseconds: the limit is 200, the rest is room for a busy machine. */
const patienceMs = 5_000;

const costly: [string, string][] = [
  ["emphasis that is never closed", repeated("*_a")],
  ["emphasis within emphasis", repeated("*a _b ", 16_000) + repeated("_ *", 16_000)],
  [
    "a table of 7,500 columns",
    `${repeated("|a", 15_000)}\n${repeated("|-", 15_000)}\n${repeated("|\n", 1_000)}`,
  ],
  ["quotes within quotes", repeated("> ")],
  ["lists within lists", repeated("1. ")],
];

const messageWith = (body: string) => ({
  ...{ id: "id", kind: "run.completed", title: "title", body, url: undefined, payload: {} },
});

test.each(costly)("%s: mail and Slack have the text, and later tries cost nothing", (_, body) => {
  const startedAt = performance.now();
  expect(htmlOf(messageWith(body))).toContain("<h2>title</h2>");
  expect(slackMessage(messageWith(body)).blocks).not.toHaveLength(0);
  expect(performance.now() - startedAt).toBeLessThan(patienceMs);
  const again = performance.now();
  for (let count = 0; count < 20; count++) htmlOf(messageWith(body));
  expect(performance.now() - again).toBeLessThan(patienceMs);
});

test("what cannot be formatted is sent as it is, and calls nobody", () => {
  const body = `<!channel> & <b>\n\n${repeated("> ", 8_000)}`;
  expect(htmlOf(messageWith(body))).toContain("<pre>&lt;!channel&gt; &amp; &lt;b&gt;\n\n&gt; &gt;");
  const blocks = JSON.stringify(slackMessage(messageWith(body)).blocks);
  expect(blocks).toContain("&lt;!channel&gt; &amp; &lt;b&gt;");
  expect(blocks).not.toContain("<!");
});

function messageAbout(output: string) {
  const delivery = {
    ...{ orgId: "org", id: "id", leaseToken: "x", destinationId: "x", watcherId: "w", runId: "r" },
    ...{ kind: "run.completed", reason: "always", subject: {}, attempts: 1, sinceMs: 0 },
    createdAt: new Date(),
  } satisfies Claimed;
  const run = { id: "r", status: "completed", reason: "", outputTail: "" };
  const facts = { orgName: "org", watcher: { name: "w" }, run, data: { output } };
  return messageOf(delivery, facts as unknown as Facts, undefined);
}

test("an output of a hundred thousand backticks has its fence", () => {
  const { body } = messageAbout(repeated("`a", 1_000_000));
  expect(body).toMatch(/^```\n…/);
});

test("an output that is cut within a character has whole characters, in every kind of message", () => {
  for (const before of ["", "a"]) {
    const message = messageAbout(`${before}${repeated("😀", 100_000)}`);
    for (const sent of [message.payload, slackMessage(message), htmlOf(message)]) {
      expect(JSON.stringify(sent)).not.toMatch(/\\ud[89a-f]|\ufffd/);
    }
  }
});
