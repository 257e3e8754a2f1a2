import { create } from "@bufbuild/protobuf";
import { type Token, TokenKind, TokenSchema } from "#gen/pinion/v1/token_pb.js";
import type * as tokens from "../../../store/people/credentials/tokens.ts";
import { timestampOf } from "./moments.ts";

/** Tokens between rows and messages. */

const kindMessages: Record<tokens.Token["kind"], TokenKind> = {
  pat: TokenKind.PAT,
  dev: TokenKind.DEV,
  svc: TokenKind.SVC,
};

export function tokenMessage(row: tokens.Token): Token {
  return create(TokenSchema, {
    id: row.id,
    kind: kindMessages[row.kind],
    label: row.label,
    scopes: row.scopes,
    userId: row.user_id ?? "",
    deviceId: row.device_id ?? "",
    createdAt: timestampOf(row.created_at),
    expiresAt: timestampOf(row.expires_at),
    lastUsedAt: timestampOf(row.last_used_at),
    revokedAt: timestampOf(row.revoked_at),
    creatorId: row.creator_id ?? "",
    creatorLeft: row.has_creator_left ?? false,
    allDevices: row.all_devices,
  });
}
