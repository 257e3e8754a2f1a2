/**
 * Decisions about messages of chat platforms: whose are let through, whom they are of, how a reply
 * is cut.
 */
import { expect, test } from "vitest";
import { refusalOf, userOf } from "../../../../src/server/platforms/incoming.ts";
import { inOrder } from "../../../../src/server/platforms/lines/in-order.ts";
import type { Heard } from "../../../../src/server/platforms/lines/line.ts";
import { finalText, partsOf } from "../../../../src/server/platforms/speech.ts";
import { parseConversationId } from "../../../../src/values/conversation-ids.ts";

const heard = (more: Partial<Heard> = {}): Heard => ({
  ...{ threadId: "telegram:7", chatId: "7", messageId: "7:1", senderId: "7", senderName: "Ada" },
  ...{ text: "hello", isDirect: true },
  ...more,
});
const inGroup = heard({ isDirect: false, chatId: "-100" });

test("without a setting nobody is let through, and the refusal names the id to add", () => {
  expect(refusalOf({ config: {} }, heard())).toContain("add 7 to allow_from");
  expect(refusalOf({ config: {} }, inGroup)).toContain("add -100 to allow_groups");
  expect(refusalOf({ config: { allow_from: "" } }, heard())).toBeDefined();
});

test("a direct message needs its sender, a message in a group the group; ids are whole, in lists of any shape", () => {
  for (const allow_from of ["7", "1,7", "1, 7", " 7 ", "1 7", "1\n7", "*"]) {
    expect(refusalOf({ config: { allow_from } }, heard())).toBeUndefined();
    expect(refusalOf({ config: { allow_from } }, inGroup)).toBeDefined();
  }
  for (const allow_from of ["77", "70", "-7", "Ada"])
    expect(refusalOf({ config: { allow_from } }, heard())).toBeDefined();
  expect(refusalOf({ config: { allow_groups: "-100" } }, inGroup)).toBeUndefined();
  expect(refusalOf({ config: { allow_groups: "-100" } }, heard({ chatId: "-100" }))).toBeDefined();
});

test("a sender has a conversation of its own, apart in each group, whatever the platform calls people", () => {
  const names = [
    heard(),
    inGroup,
    heard({ senderId: "29:1abc_def" }),
    heard({ senderId: "users/1\u0000\n" }),
    heard({ senderId: "x".repeat(500) }),
  ].map((message) => userOf("telegram", message));
  expect(names.slice(0, 3)).toEqual(["telegram:7", "telegram:7@-100", "telegram:29:1abc_def"]);
  expect(new Set(names).size).toBe(names.length);
  for (const name of names)
    expect(parseConversationId(`agent_${name}_org`)).toMatchObject({
      kind: "user",
      userId: name,
      orgId: "org",
    });
});

test("a reply is cut between lines where it can be, keeps every word, and ends with a note beyond ten messages", () => {
  expect(partsOf("short", 100)).toEqual(["short"]);
  const lines = Array.from({ length: 50 }, (_, n) => `line ${n}`);
  const parts = partsOf(lines.join("\n"), 60);
  expect(parts.every((part) => part.length <= 60)).toBe(true);
  expect(parts.slice(0, 5).every((part) => /^line \d+\n[\s\S]*line \d+$/.test(part))).toBe(true);
  const emoji = partsOf("😀".repeat(100), 33);
  expect(emoji.join("")).toBe("😀".repeat(100));
  expect(emoji.every((part) => part.isWellFormed())).toBe(true);
  const long = partsOf("word ".repeat(10_000), 100, "https://pinion.example.org");
  expect(long).toHaveLength(10);
  expect(long.at(-1)).toContain("cut; the whole is in Pinion: https://pinion.example.org");
  expect(long.at(-1)!.length).toBeLessThanOrEqual(100);
});

test("a turn without an answer says why, and whether to send it again", () => {
  const turn = { status: "completed", reply: " hi ", reason: "", isRetryable: false } as const;
  expect(finalText(turn)).toBe("hi");
  expect(finalText({ ...turn, reply: "" })).toBe("(The agent said nothing.)");
  expect(finalText({ ...turn, status: "failed", reason: "the worker is gone", isRetryable: true })).toBe(
    "There is no answer: the worker is gone. You may send it again.",
  );
  expect(finalText({ ...turn, status: "cancelled", reason: "no time" })).toBe("Cancelled: no time.");
});

test("messages of a thread that come at once are taken by their ids, one after the other; a failure stops no other", async () => {
  const taken: string[] = [];
  let under = 0;
  const take = inOrder(async ({ messageId }) => {
    expect(++under).toBe(1);
    await new Promise((resolve) => setImmediate(resolve));
    taken.push(messageId);
    under--;
    if (messageId === "7:2") throw new Error("no room");
  });
  const all = ["7:10", "7:2", "7:9"].map((messageId) => take(heard({ messageId })));
  const ends = await Promise.allSettled(all);
  expect(taken).toEqual(["7:2", "7:9", "7:10"]);
  expect(ends.map(({ status }) => status)).toEqual(["fulfilled", "rejected", "fulfilled"]);
});
