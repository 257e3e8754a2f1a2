import { createClients } from "@pinion/client";
import type { Command } from "commander";
import { type Cli, examples } from "../cli.ts";
import {
  type GlobalOptions,
  optionsOf,
  proxyOption,
  readLine,
  requireTokenForm,
  serverUrl,
} from "../context.ts";
import { logInByCode } from "../contexts/device-code.ts";
import { contextsFile, type KeptContext, keptIn, readContexts, writeContexts } from "../contexts/file.ts";
import { findKeychain, type KeychainName, keychainOf } from "../contexts/keychain.ts";
import { askForToken } from "../contexts/token-prompt.ts";
import { exitCodes, Failure, told } from "../failures.ts";
import { plain } from "../print/table.ts";

type LoginOptions = GlobalOptions & {
  name?: string;
  tokenFile?: string;
  paste?: boolean;
  cell?: string;
  keychain: boolean;
};

/** `pinion login`: stores a server and a token for use in every directory. */
export function addLogin(program: Command, cli: Cli): void {
  const login = program
    .command("login")
    .argument("[url]", "the server; default: the one that the other commands would ask")
    .description("keep a server and a token of it as a context, which commands use from any directory")
    .option("--name <name>", "what the context is called; default: the server's host")
    .option("--token-file <file>", "where a token is; - is standard input")
    .option("--paste", "ask for a token at the prompt, instead of a code to confirm on the page")
    .option(
      "--cell <name>",
      "the cell of your org, where the server has several; your operator knows its name",
    )
    .option("--no-keychain", "keep the token in a file of mode 0600, also where there is a keychain")
    .action(async (given: string | undefined, _options, command: Command) => {
      const options = optionsOf<LoginOptions>(command);
      const url = serverUrl(given === undefined ? options : { ...options, url: given }, cli.env);
      const token = (await givenToken(options, url)) ?? (await confirmedToken(cli, options, url));
      const orgId = await requireTaken(options, url, token);
      const name = options.name ?? new URL(url).host;
      const kept = keep(cli, { name, url, token, mayUseKeychain: options.keychain });
      const { contexts } = readContexts(cli.env);
      writeContexts(cli.env, { current: name, contexts: { ...contexts, [name]: kept } });
      if (options.json) {
        return cli.out(JSON.stringify({ name, url, org_id: orgId, kept_in: keptIn(kept) }));
      }
      cli.out(`${plain(name)} is the current context: ${url}, org ${plain(orgId)}`);
      const place =
        keptIn(kept) === "keychain" ? "the keychain" : `${contextsFile(cli.env)}, which only you may read`;
      cli.note(`the token is kept in ${place}`);
    });
  examples(login, [
    ["login https://pinion.example.org", "shows a code, which you confirm on the page"],
    [
      "login http://localhost:7420 --name here --token-file .pinion/token",
      "what `pinion up` made, from any directory",
    ],
  ]);
}

/** `pinion logout`. */
export function addLogout(program: Command, cli: Cli): void {
  const logout = program
    .command("logout")
    .argument("[context]", "its name; default: the current one")
    .description("forget a context and its token; the token itself stays good until it is revoked")
    .action((named: string | undefined, _options, command: Command) => {
      const { current, contexts } = readContexts(cli.env);
      const name = named ?? current;
      const { [name]: gone, ...rest } = contexts;
      if (!gone) {
        throw new Failure(exitCodes.notFound, name ? `there is no context "${name}"` : "there is no context");
      }
      if ("keychain" in gone) forget(cli, name, gone.keychain);
      writeContexts(cli.env, { current: name === current ? "" : current, contexts: rest });
      if (optionsOf(command).json) return cli.out(JSON.stringify({ name, forgotten: true }));
      cli.out(`${plain(name)} is forgotten; \`pinion tokens revoke\` ends the token itself`);
    });
  examples(logout, [["logout pinion.example.org", ""]]);
}

/** A token of the command line, a file or a prompt; undefined: none of these is asked for. */
async function givenToken(options: LoginOptions, url: string): Promise<string | undefined> {
  if (options.token) {
    requireTokenForm({ token: options.token, from: "--token" });
    return options.token;
  }
  const { tokenFile } = options;
  const isAsked = options.paste || tokenFile === "-";
  if (!isAsked && tokenFile === undefined) return undefined;
  const found =
    isAsked || tokenFile === undefined
      ? await askForToken(`a token of ${url} (the page and \`pinion tokens create\` make one): `)
      : readLine(tokenFile);
  if (found) {
    requireTokenForm({ token: found, from: tokenFile ?? "the prompt" });
    return found;
  }
  throw new Failure(
    exitCodes.usage,
    isAsked ? "no token was given" : `${tokenFile} holds no token`,
    "without --paste and --token-file a code is shown, which you confirm on the page",
  );
}

async function confirmedToken(cli: Cli, options: LoginOptions, url: string): Promise<string> {
  const clients = createClients({ url, cell: options.cell ?? "", ...proxyOption(options) });
  try {
    return (await logInByCode(cli, clients, url)).token;
  } finally {
    clients.close();
  }
}

/** Puts the token into the keychain, or leaves the token to the file. */
function keep(
  cli: Cli,
  { name, url, token, mayUseKeychain }: { name: string; url: string; token: string; mayUseKeychain: boolean },
): KeptContext {
  const keychain = mayUseKeychain ? findKeychain(cli.env) : undefined;
  if (!keychain) return { url, token };
  try {
    keychain.store(name, token);
    return { url, keychain: keychain.name };
  } catch (error) {
    const why = plain((error as Error).message.trim().split("\n")[0] ?? "");
    cli.note(`the keychain does not take the token (${why})`);
    return { url, token };
  }
}

/** An entry that is gone already, or a keychain that is not here, is no error. */
function forget(cli: Cli, name: string, keychain: KeychainName): void {
  try {
    keychainOf(keychain, cli.env)?.forget(name);
  } catch {
    cli.note("the keychain did not forget the token; remove its entry there");
  }
}

/** The token's org; throws the server's error for a refused token. */
async function requireTaken(options: LoginOptions, url: string, token: string): Promise<string> {
  const clients = createClients({ url, token, ...proxyOption(options) });
  try {
    return told((await clients.orgs.getOrg({})).org, "org").id;
  } finally {
    clients.close();
  }
}
