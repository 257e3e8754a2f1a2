import { createClients } from "@pinion/client";
import type { Command } from "commander";
import { type Cli, examples } from "../cli.ts";
import { type GlobalOptions, optionsOf, proxyOption, readLine, serverUrl } from "../context.ts";
import { contextsFile, readContexts, writeContexts } from "../contexts/file.ts";
import { askForToken } from "../contexts/token-prompt.ts";
import { exitCodes, Failure } from "../failures.ts";
import { plain } from "../print/table.ts";

type LoginOptions = GlobalOptions & { name?: string; tokenFile?: string };

/** `pinion login`: stores a server and a token for use in every directory. */
export function addLogin(program: Command, cli: Cli): void {
  const login = program
    .command("login")
    .argument("[url]", "the server; default: the one that the other commands would ask")
    .description("keep a server and a token of it as a context, which commands use from any directory")
    .option("--name <name>", "what the context is called; default: the server's host")
    .option("--token-file <file>", "where the token is; else it is asked for, or read from standard input")
    .action(async (given: string | undefined, _options, command: Command) => {
      const options = optionsOf<LoginOptions>(command);
      const url = serverUrl(given === undefined ? options : { ...options, url: given }, cli.env);
      const token = await tokenOf(options, url);
      const orgId = await requireTaken(options, url, token);
      const name = options.name ?? new URL(url).host;
      const { contexts } = readContexts(cli.env);
      writeContexts(cli.env, { current: name, contexts: { ...contexts, [name]: { url, token } } });
      if (options.json) return cli.out(JSON.stringify({ name, url, org_id: orgId }));
      cli.out(`${plain(name)} is the current context: ${url}, org ${plain(orgId)}`);
      cli.note(`kept in ${contextsFile(cli.env)}, which only you may read`);
    });
  examples(login, [
    ["login https://pinion.example.org", "asks for the token"],
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
      if (!contexts[name]) {
        throw new Failure(exitCodes.notFound, name ? `there is no context "${name}"` : "there is no context");
      }
      const { [name]: _gone, ...rest } = contexts;
      writeContexts(cli.env, { current: name === current ? "" : current, contexts: rest });
      if (optionsOf(command).json) return cli.out(JSON.stringify({ name, forgotten: true }));
      cli.out(`${plain(name)} is forgotten; \`pinion tokens revoke\` ends the token itself`);
    });
  examples(logout, [["logout pinion.example.org", ""]]);
}

async function tokenOf(options: LoginOptions, url: string): Promise<string> {
  if (options.token) return options.token;
  const found = options.tokenFile
    ? readLine(options.tokenFile)
    : await askForToken(`a token of ${url} (the page and \`pinion tokens create\` make one): `);
  if (found) return found;
  throw new Failure(
    exitCodes.usage,
    options.tokenFile ? `${options.tokenFile} holds no token` : "no token was given",
    "type it, or give --token-file",
  );
}

/** The token's org; throws the server's error for a refused token. */
async function requireTaken(options: LoginOptions, url: string, token: string): Promise<string> {
  const clients = createClients({ url, token, ...proxyOption(options) });
  try {
    return (await clients.orgs.getOrg({})).org!.id;
  } finally {
    clients.close();
  }
}
