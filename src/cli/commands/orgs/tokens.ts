import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import {
  CreateTokenResponseSchema,
  ListTokensResponseSchema,
  RotateTokenResponseSchema,
  type Token,
  TokenKind,
  TokenSchema,
} from "#gen/pinion/v1/token_pb.js";
import { newToken } from "../../../values/ids.ts";
import { type Cli, examples } from "../../cli.ts";
import { connect, optionsOf } from "../../context.ts";
import { told } from "../../failures.ts";
import { deviceId } from "../../lookup.ts";
import { printJson } from "../../print/json.ts";
import { printList } from "../../print/lists.ts";
import { list, wholeNumber } from "../../print/paging.ts";
import { type Column, plain } from "../../print/table.ts";
import { formatAgo, formatMomentAgo, parseLength } from "../../print/times.ts";
import * as words from "../../print/words.ts";

/** `pinion tokens …`: tokens of people and services. */
export function addTokens(program: Command, cli: Cli): void {
  const tokens = program.command("tokens").description("what people and services identify themselves with");
  addCreate(tokens, cli);
  addGenerate(tokens, cli);
  addList(tokens, cli);
  addRevoke(tokens, cli);
  addRotate(tokens, cli);
}

/** Without a server: for a secret store that provides the owner's token of a first start. */
function addGenerate(tokens: Command, cli: Cli): void {
  const command = tokens
    .command("generate")
    .description("print a token that no server knows yet, for PINION_BOOTSTRAP_TOKEN of a first start")
    .action((_options, command: Command) => {
      const token = newToken("pat");
      cli.out(optionsOf(command).json ? JSON.stringify({ token }) : token);
    });
  examples(command, [["tokens generate", "for the secret that sets PINION_BOOTSTRAP_TOKEN"]]);
}

function addCreate(tokens: Command, cli: Cli): void {
  const command = tokens
    .command("create")
    .argument("<label>", "what it is for, shown in lists")
    .description("make a token; it is shown only now")
    .option(
      "--scope <scope>",
      "read, write, admin or fleet:run, none above your role; several with commas or repeated",
      list,
    )
    .option("--service", "for a service or a fleet worker instead of a person")
    .option(
      "--device <device>",
      "for a service: a device of yours that it may use, manage and read; repeatable",
      list,
    )
    .option("--all-devices", "for a service: every device of the org; for owners and admins")
    .option("--expires-in <length>", "how long it is good, for example 90d; default: for ever")
    .action(async (label: string, _options, command: Command) => {
      const { clients, options } = connect<{
        scope?: string[];
        service?: boolean;
        device?: string[];
        allDevices?: boolean;
        expiresIn?: string;
      }>(cli, command);
      const answer = await clients.tokens.createToken({
        label,
        kind: options.service ? TokenKind.SVC : TokenKind.PAT,
        scopes: options.scope ?? ["read"],
        deviceIds: await Promise.all((options.device ?? []).map((named) => deviceId(clients, named))),
        allDevices: options.allDevices ?? false,
        ...(options.expiresIn
          ? { expiresIn: durationFromMs(parseLength(options.expiresIn, "--expires-in")) }
          : {}),
      });
      if (options.json) return printJson(cli, CreateTokenResponseSchema, answer);
      cli.out(answer.secret);
      const token = told(answer.token, "token");
      cli.note(
        `scopes ${token.scopes.join(", ")}; ${token.expiresAt ? `good until ${formatMomentAgo(token.expiresAt)}` : "good for ever"}; ` +
          `keep it now, it is not shown again (pinion tokens revoke ${token.id})`,
      );
    });
  examples(command, [
    ["tokens create dashboard", "reads only"],
    [
      "tokens create ci --service --scope read,write --expires-in 90d",
      "for a service, without anybody's device",
    ],
    ["tokens create ci --service --scope read,write --device lab-box", "one that may use a device of yours"],
    ["tokens create worker-1 --service --scope fleet:run", "for a fleet worker"],
  ]);
}

function addList(tokens: Command, cli: Cli): void {
  const command = tokens
    .command("list")
    .alias("ls")
    .description("list the tokens, newest first, never their secrets")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 100)
    .option("--all", "also revoked ones")
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{ limit: number; all?: boolean }>(cli, command);
      await printList(cli, options, {
        schema: ListTokensResponseSchema,
        field: "tokens",
        read: (request) => clients.tokens.listTokens(request),
        isShown: (token) => options.all === true || token.revokedAt === undefined,
        columns: tokenColumns(cli),
      });
    });
  examples(command, [
    ["tokens list", "the ones that are good or expired"],
    ["tokens list --all", "also the revoked ones"],
  ]);
}

function tokenColumns(cli: Cli): Column<Token>[] {
  return [
    { header: "LABEL", cell: (token) => plain(token.label), isFlexible: true },
    { header: "KIND", cell: (token) => words.tokenKind.word(token.kind) },
    { header: "SCOPES", cell: (token) => token.scopes.join(",") },
    { header: "DEVICES", cell: (token) => (token.allDevices ? "all" : "") },
    {
      header: "MADE BY",
      cell: (token) => token.creatorId && `${token.creatorId}${token.creatorLeft ? " (no member)" : ""}`,
    },
    { header: "LAST USED", cell: (token) => formatAgo(token.lastUsedAt) || "never" },
    { header: "EXPIRES", cell: (token) => formatAgo(token.expiresAt) },
    { header: "REVOKED", cell: (token) => cli.colors.dim(formatAgo(token.revokedAt)) },
    { header: "ID", cell: (token) => token.id },
  ];
}

function addRevoke(tokens: Command, cli: Cli): void {
  const command = tokens
    .command("revoke")
    .argument("<token-id>", "the token's id, as `pinion tokens list` shows it; not its secret")
    .description("end a token and every stream that was opened with it")
    .action(async (tokenId: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const answer = await clients.tokens.revokeToken({ tokenId });
      if (options.json) return printJson(cli, TokenSchema, told(answer.token, "token"));
      cli.out(`${plain(answer.token?.label ?? tokenId)} is revoked`);
    });
  examples(command, [["tokens revoke 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e", "at once, on every replica"]]);
}

function addRotate(tokens: Command, cli: Cli): void {
  const command = tokens
    .command("rotate")
    .argument("<token-id>", "the token's id, as `pinion tokens list` shows it; not its secret")
    .description("make a successor that may do the same; it is shown only now, and the old one expires")
    .option("--overlap <length>", "how long the old one stays good, for example 2h; default: 10m")
    .option("--expires-in <length>", "how long the new one is good; default: as long as the old one was")
    .action(async (tokenId: string, _options, command: Command) => {
      const { clients, options } = connect<{ overlap?: string; expiresIn?: string }>(cli, command);
      const answer = await clients.tokens.rotateToken({
        tokenId,
        ...(options.overlap ? { overlap: durationFromMs(parseLength(options.overlap, "--overlap")) } : {}),
        ...(options.expiresIn
          ? { expiresIn: durationFromMs(parseLength(options.expiresIn, "--expires-in")) }
          : {}),
      });
      if (options.json) return printJson(cli, RotateTokenResponseSchema, answer);
      cli.out(answer.secret);
      cli.note(
        `keep it now, it is not shown again; the old one is good until ${formatMomentAgo(answer.predecessor?.expiresAt)}`,
      );
    });
  examples(command, [
    ["tokens rotate 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e", "ten minutes to change over"],
    ["tokens rotate 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e --overlap 1d", "a day"],
  ]);
}
