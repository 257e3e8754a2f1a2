/**
 * The token of a run's agent for Pinion's MCP endpoint: made of the attempt's own fence, which the agent never sees, and good for as
 * long as that attempt lives. Nothing is stored for it, and no other door takes it.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { isUuid, withCell } from "./ids.ts";

const prefix = "pin_run_";
/** An org's id, a UUID and a hash, in base64url: of such texts base64url has neither "_" nor "-". */
const charactersMax = 400;

type Attempt = { orgId: string; runId: string; attemptToken: string };

export type AgentClaim = { orgId: string; runId: string; proof: string };

export function agentToken({ orgId, runId, attemptToken }: Attempt): string {
  return `${prefix}${Buffer.from(`${orgId} ${runId} ${proofOf(attemptToken)}`).toString("base64url")}`;
}

/** What an `authorization` header claims, if it holds such a token; {@link isProof} says whether it is so. */
export function readAgentToken(authorization: string | null | undefined): AgentClaim | undefined {
  const secret = /^bearer +(\S+)$/i.exec(authorization ?? "")?.[1];
  if (!secret?.startsWith(prefix) || secret.length > charactersMax) return undefined;
  const unnamed = withCell(secret, "").slice(prefix.length);
  const [orgId, runId, proof, ...rest] = Buffer.from(unnamed, "base64url").toString("utf8").split(" ");
  return orgId && runId && isUuid(runId) && proof && rest.length === 0 ? { orgId, runId, proof } : undefined;
}

/** Whether the claim is of who has this attempt. */
export function isProof({ proof }: AgentClaim, attemptToken: string): boolean {
  const [given, wanted] = [Buffer.from(proof), Buffer.from(proofOf(attemptToken))];
  return given.length === wanted.length && timingSafeEqual(given, wanted);
}

/** The fence has 122 random bits, and does not follow from its hash. */
function proofOf(attemptToken: string): string {
  return createHash("sha256").update(`agent of ${attemptToken.toLowerCase()}`).digest("base64url");
}
