import { expect, test } from "vitest";
import { conversationOf } from "../../../src/server/rpc/turn-conversation.ts";
import {
  conversationOfRun,
  conversationOfUser,
  parseConversationId,
} from "../../../src/values/conversation-ids.ts";

const watcherId = "0190f5fe-7c00-7a00-8000-000000000001";
const runId = "0190f5fe-7c00-7a00-8000-000000000002";
const mine = { orgId: "acme", agentId: "helper" };
const nothing = { conversationId: "", userId: "", watcherId: "", runId: "", withoutSnapshot: false };
const reasonOf = (request: Partial<typeof nothing>) => {
  try {
    conversationOf({ ...nothing, ...request }, mine);
    return "none";
  } catch (error) {
    return (error as { reason: string }).reason;
  }
};

test("both shapes are read back as they were made, whatever is in a user's name", () => {
  for (const userId of ["ada", "ada_lovelace", "a_acme", "+49-30.1@x:y", "_", "run_1"]) {
    const id = conversationOfUser({ agentId: "helper", userId, orgId: "acme" });
    expect(parseConversationId(id)).toEqual({ kind: "user", agentId: "helper", userId, orgId: "acme" });
  }
  const id = conversationOfRun({ agentId: "helper", watcherId, runId });
  expect(id).toBe(`helper_watcher_${watcherId}_run_${runId}`);
  expect(parseConversationId(id)).toEqual({ kind: "run", agentId: "helper", watcherId, runId });
});

test("nothing else is a conversation id, and no person's looks like a run's", () => {
  const wrong = [
    "",
    "helper",
    "helper_acme",
    "helper__acme",
    "Helper_ada_acme",
    "helper_a\tb_acme",
    "helper_a\u200bb_acme",
    "helper_ada_acme\n",
  ];
  wrong.push(
    `helper_watcher_${watcherId}_run_${runId.toUpperCase()}`,
    `helper_watcher_${watcherId}_run_${runId}_acme`,
  );
  for (const id of wrong) expect([id, parseConversationId(id)]).toEqual([id, undefined]);
});

test("the gate: only a turn about a run that would write a snapshot needs a conversation", () => {
  expect(reasonOf({ runId })).toBe("aborted");
  expect(conversationOf({ ...nothing, runId, withoutSnapshot: true }, mine)).toMatchObject({
    isGated: false,
  });
  expect(conversationOf(nothing, mine)).toEqual({ conversationId: "", isGated: false, run: undefined });
  expect(conversationOf({ ...nothing, userId: "ada", runId }, mine)).toEqual({
    conversationId: "helper_ada_acme",
    isGated: true,
    run: { runId, watcherId: undefined },
  });
  expect(conversationOf({ ...nothing, watcherId, runId: runId.toUpperCase() }, mine)).toEqual({
    conversationId: `helper_watcher_${watcherId}_run_${runId}`,
    isGated: true,
    run: { runId, watcherId },
  });
  expect(conversationOf({ ...nothing, userId: "ada", withoutSnapshot: true }, mine)).toMatchObject({
    conversationId: "helper_ada_acme",
    isGated: false,
  });
});

test("a conversation of another agent, org, person or run is refused", () => {
  for (const conversationId of ["other_ada_acme", "helper_ada_globex", "helper"]) {
    expect([conversationId, reasonOf({ conversationId })]).toEqual([conversationId, "invalid_argument"]);
  }
  expect(reasonOf({ conversationId: "helper_ada_acme", userId: "bob" })).toBe("invalid_argument");
  expect(
    reasonOf({
      conversationId: conversationOfRun({ agentId: "helper", watcherId, runId }),
      runId: watcherId,
    }),
  ).toBe("invalid_argument");
  expect(reasonOf({ watcherId })).toBe("invalid_argument");
  expect(reasonOf({ userId: `watcher_${watcherId}_run_${runId}` })).toBe("invalid_argument");
});

test("people are called as chat platforms call them", () => {
  for (const userId of ["19:abc/def;x=1!y", "Zoë Müller", "玛丽", "U02_AB C", "a=b&c", "users/42", "🙂"]) {
    const id = conversationOfUser({ agentId: "helper", userId, orgId: "acme" });
    expect(parseConversationId(id)).toEqual({ kind: "user", agentId: "helper", userId, orgId: "acme" });
  }
});
