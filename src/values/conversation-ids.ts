/**
 * Names of conversations. Ids of agents and orgs have no "_" (their rules in the .proto say so), so
 * both shapes are read back without doubt:
 *
 *   <agent>_<user>_<org>                     what a person says to an agent
 *   <agent>_watcher_<watcher>_run_<run>      what is said about a watcher's run
 */

/** "<agent>_<user>_<org>", exactly. */
export function conversationOfUser(name: { agentId: string; userId: string; orgId: string }): string {
  return `${name.agentId}_${name.userId}_${name.orgId}`;
}

/** "<agent>_watcher_<watcher>_run_<run>", exactly. */
export function conversationOfRun(name: { agentId: string; watcherId: string; runId: string }): string {
  return `${name.agentId}_watcher_${name.watcherId}_run_${name.runId}`;
}

export type ParsedConversation = { agentId: string } & (
  | { kind: "user"; userId: string; orgId: string }
  | { kind: "run"; watcherId: string; runId: string }
);

const uuid = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
const ofRun = new RegExp(`^([a-z0-9-]+)_watcher_(${uuid})_run_(${uuid})$`);
// Chat platforms name people with letters of every script, spaces and signs; invisible characters
// are not allowed.
const ofUser = /^([a-z0-9-]+)_([\p{L}\p{M}\p{N}\p{P}\p{S} ]{1,128})_([a-z0-9-]+)$/u;

/** The parts of a conversation id; undefined for any other text. */
export function parseConversationId(id: string): ParsedConversation | undefined {
  const run = ofRun.exec(id) as [string, string, string, string] | null;
  if (run) return { kind: "run", agentId: run[1], watcherId: run[2], runId: run[3] };
  const user = ofUser.exec(id) as [string, string, string, string] | null;
  // No user id begins with "watcher_", so that no person's conversation can look like a run's.
  if (!user || isReservedUser(user[2])) return undefined;
  return { kind: "user", agentId: user[1], userId: user[2], orgId: user[3] };
}

/** Whether the user id is reserved for the conversations of runs. */
export function isReservedUser(userId: string): boolean {
  return userId.startsWith("watcher_");
}
