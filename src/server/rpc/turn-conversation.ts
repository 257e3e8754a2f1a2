import { refuse } from "../../errors.ts";
import {
  conversationOfRun,
  conversationOfUser,
  isReservedUser,
  parseConversationId,
} from "../../values/conversation-ids.ts";

/** A request's fields about the conversation of its turn. */
export type ConversationRequest = {
  conversationId: string;
  userId: string;
  watcherId: string;
  runId: string;
  withoutSnapshot: boolean;
};

export type TurnConversation = {
  /** Empty for a turn without a conversation. */
  conversationId: string;
  /** The turn takes the conversation's lease, reads its snapshot and writes the next snapshot. */
  isGated: boolean;
  /** The run in the request, which must exist in the org. */
  run: { runId: string; watcherId: string | undefined } | undefined;
};

/** Milliseconds after which a caller refused by the gate tries again. */
const gateRetryMs = 1_000;

/**
 * The conversation of a turn of the agent in the org. A request that names another agent's or
 * another org's conversation is refused with `invalid_argument`. The gate: a turn about a run that
 * would write a snapshot and has no conversation is refused with `aborted`, and may be tried again;
 * a turn without a run, or without a snapshot, passes ungated.
 */
export function conversationOf(
  request: ConversationRequest,
  { orgId, agentId }: { orgId: string; agentId: string },
): TurnConversation {
  const runId = request.runId.toLowerCase();
  const watcherId = request.watcherId.toLowerCase();
  if (isReservedUser(request.userId)) {
    refuse("invalid_argument", 'user_id: nobody is called "watcher_…"', { field: "user_id" });
  }
  if (watcherId !== "" && runId === "") {
    refuse("invalid_argument", "watcher_id: name the run_id, too", { field: "watcher_id" });
  }
  const derived =
    request.userId !== ""
      ? conversationOfUser({ agentId, userId: request.userId, orgId })
      : watcherId !== ""
        ? conversationOfRun({ agentId, watcherId, runId })
        : "";
  const conversationId = request.conversationId || derived;
  if (derived !== "" && conversationId !== derived) {
    refuse("invalid_argument", `conversation_id: it must be "${derived}", or be left out`, {
      field: "conversation_id",
    });
  }
  if (conversationId === "") {
    if (runId !== "" && !request.withoutSnapshot) {
      refuse(
        "aborted",
        "a turn with a run id writes its conversation's snapshot, and this one has no conversation: name conversation_id, " +
          "user_id or watcher_id, or set without_snapshot",
        { retryAfterMs: gateRetryMs, field: "conversation_id" },
      );
    }
    return {
      conversationId,
      isGated: false,
      run: runId === "" ? undefined : { runId, watcherId: undefined },
    };
  }
  const run = requireOwn(conversationId, { orgId, agentId, runId });
  return { conversationId, isGated: !request.withoutSnapshot, run };
}

/**
 * Refuses an invalid conversation id and a conversation of another agent or org; returns the run of
 * the conversation.
 */
function requireOwn(
  conversationId: string,
  { orgId, agentId, runId }: { orgId: string; agentId: string; runId: string },
): TurnConversation["run"] {
  const field = "conversation_id";
  const parsed = parseConversationId(conversationId);
  if (!parsed) {
    refuse(
      "invalid_argument",
      'conversation_id: it is "<agent>_<user>_<org>" or "<agent>_watcher_<watcher>_run_<run>", exactly',
      { field },
    );
  }
  if (parsed.agentId !== agentId) {
    refuse("invalid_argument", `conversation_id: it is not one of agent "${agentId}"`, { field });
  }
  if (parsed.kind === "user") {
    if (parsed.orgId !== orgId) {
      refuse("invalid_argument", `conversation_id: it must end in "_${orgId}"`, { field });
    }
    return runId === "" ? undefined : { runId, watcherId: undefined };
  }
  if (runId !== "" && runId !== parsed.runId) {
    refuse("invalid_argument", "conversation_id: it is about another run than run_id", { field });
  }
  return { runId: parsed.runId, watcherId: parsed.watcherId };
}
