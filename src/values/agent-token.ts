/**
 * The token of a run's agent for Pinion's MCP endpoint. The token is made from the attempt's token,
 * which the agent never sees, and is valid as long as the attempt lives. The database stores
 * nothing for the token, and no other endpoint accepts the token.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { isUuid, withCell } from "./ids.ts";

const prefix = "pin_run_";
/**
 * An org's id, a UUID and a hash in base64url. The base64url of such a text has no "_" and no "-".
 */
const charactersMax = 400;

type Attempt = { orgId: string; runId: string; attemptToken: string };

export type AgentClaim = { orgId: string; runId: string; proof: string };

export function agentToken({ orgId, runId, attemptToken }: Attempt): string {
  return `${prefix}${Buffer.from(`${orgId} ${runId} ${proofOf(attemptToken)}`).toString("base64url")}`;
}

/**
 * The claim of an `authorization` header with an agent's token; undefined for any other header.
 * {@link isProof} checks the claim.
 */
export function readAgentToken(authorization: string | null | undefined): AgentClaim | undefined {
  const secret = /^bearer +(\S+)$/i.exec(authorization ?? "")?.[1];
  if (!secret?.startsWith(prefix) || secret.length > charactersMax) return undefined;
  const unnamed = withCell(secret, "").slice(prefix.length);
  const [orgId, runId, proof, ...rest] = Buffer.from(unnamed, "base64url").toString("utf8").split(" ");
  return orgId && runId && isUuid(runId) && proof && rest.length === 0 ? { orgId, runId, proof } : undefined;
}

/** Whether the claim was made from this attempt token. */
export function isProof({ proof }: AgentClaim, attemptToken: string): boolean {
  const [given, wanted] = [Buffer.from(proof), Buffer.from(proofOf(attemptToken))];
  return given.length === wanted.length && timingSafeEqual(given, wanted);
}

/** The attempt token has 122 random bits, so the hash does not reveal the attempt token. */
function proofOf(attemptToken: string): string {
  return createHash("sha256").update(`agent of ${attemptToken.toLowerCase()}`).digest("base64url");
}
