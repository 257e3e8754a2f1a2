/**
 * Names of conversations. Ids of agents and orgs have no "_" (their rules in the .proto say so), so both shapes are read
 * back without doubt:
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
// Chat platforms call people as they like: letters of every script, spaces and signs, and nothing that cannot be seen.
const ofUser = /^([a-z0-9-]+)_([\p{L}\p{M}\p{N}\p{P}\p{S} ]{1,128})_([a-z0-9-]+)$/u;

/** What a conversation id names; undefined for a text that is none. */
export function parseConversationId(id: string): ParsedConversation | undefined {
  const run = ofRun.exec(id);
  if (run) return { kind: "run", agentId: run[1]!, watcherId: run[2]!, runId: run[3]! };
  const user = ofUser.exec(id);
  // Nobody is called "watcher_…", so that no person's conversation can look like a run's.
  if (!user || isReservedUser(user[2]!)) return undefined;
  return { kind: "user", agentId: user[1]!, userId: user[2]!, orgId: user[3]! };
}

/** Whether no person may be called so. */
export function isReservedUser(userId: string): boolean {
  return userId.startsWith("watcher_");
}
