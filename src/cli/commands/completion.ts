import type { Command, Option } from "commander";
import { type Cli, examples } from "../cli.ts";
import { connect } from "../context.ts";
import { exitCodes, Failure } from "../failures.ts";
import * as words from "../print/words.ts";

/**
 * Completions: the shell calls `pinion complete -- <words>` for the words possible at the cursor.
 * So completions always fit the installed version and can include names from the server.
 */

/** A candidate: a word and its meaning. */
type Candidate = [word: string, meaning: string];

/** Deadline of the server's answer in ms: the shell's prompt waits meanwhile. */
const askMsMax = 1_500;
const candidatesMax = 100;

const scripts: Record<string, string> = {
  bash: `_pinion() {
  local IFS=$'\\n' words
  words=("\${COMP_WORDS[@]:1:COMP_CWORD}")
  COMPREPLY=()
  while read -r candidate; do
    COMPREPLY+=("$(printf %q "\${candidate%%$'\\t'*}")")
  done < <("\${COMP_WORDS[0]}" complete -- "\${words[@]}" 2>/dev/null)
  if [ \${#COMPREPLY[@]} -eq 0 ]; then compopt -o default 2>/dev/null; fi
}
complete -F _pinion pinion`,
  zsh: `#compdef pinion
_pinion() {
  local -a candidates
  local line word
  for line in "\${(@f)$("\${words[1]}" complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    [[ -n $line ]] || continue
    word=\${line%%$'\\t'*}
    candidates+=("\${word//:/\\\\:}:\${line#*$'\\t'}")
  done
  if (( $#candidates )); then _describe pinion candidates; else _files; fi
}
if [ "$funcstack[1]" = "_pinion" ]; then _pinion "$@"; else compdef _pinion pinion; fi`,
  fish: `function __pinion_complete
  set -l words (commandline -opc) (commandline -ct)
  $words[1] complete -- $words[2..-1] 2>/dev/null
end
complete -c pinion -f -a '(__pinion_complete)'`,
};

export function addCompletion(program: Command, cli: Cli): void {
  const command = program
    .command("completion")
    .argument("<shell>", `one of: ${Object.keys(scripts).join(", ")}`)
    .description("print what makes a shell complete commands, options, and names of things")
    .action((shell: string) => {
      const script = scripts[shell];
      if (!script) {
        const known = Object.keys(scripts).join(", ");
        throw new Failure(exitCodes.usage, `no completions for "${shell}"`, `there are some for ${known}`);
      }
      cli.out(script);
    });
  examples(command, [
    ["completion bash >> ~/.bashrc", "then open a new shell"],
    ["completion zsh > ~/.zfunc/_pinion", "with ~/.zfunc in $fpath; then open a new shell"],
    ["completion fish > ~/.config/fish/completions/pinion.fish", ""],
  ]);

  const complete = program
    .command("complete", { hidden: true })
    .argument("[words...]", "the command line so far, without `pinion`; the last one is being written")
    .description("what may stand at the cursor: a line each, the word and what it means, parted by a tab")
    .action(async (line: string[], _options, command: Command) => {
      for (const [word, meaning] of await candidates(program, line, () => connect(cli, command).clients)) {
        cli.out(meaning ? `${word}\t${meaning}` : word);
      }
    });
  examples(complete, [["complete -- runs ''", "what the scripts of `pinion completion` ask"]]);
}

type Clients = ReturnType<typeof connect>["clients"];

/** Candidates for the last word of a line. */
export async function candidates(
  program: Command,
  line: readonly string[],
  clients: () => Clients,
): Promise<Candidate[]> {
  const begun = line.at(-1) ?? "";
  const { command, positionals, pending } = walk(program, line.slice(0, -1));
  const matching = (all: Candidate[]) =>
    all.filter(([word]) => word.startsWith(begun)).slice(0, candidatesMax);
  if (pending) return matching(await valuesOf(pending.long ?? "", clients));
  if (begun.startsWith("-")) return matching(optionsOf(command));
  if (command.commands.length > 0) {
    if (positionals > 0) return [];
    const shown = command.createHelp().visibleCommands(command);
    return matching(shown.map((each) => [each.name(), firstLine(each.description())]));
  }
  const argument = command.registeredArguments[positionals] ?? command.registeredArguments.at(-1);
  if (
    !argument ||
    (positionals > 0 && !argument.variadic && positionals >= command.registeredArguments.length)
  ) {
    return [];
  }
  if (command.name() === "completion") return matching(Object.keys(scripts).map((shell) => [shell, ""]));
  return matching(await valuesOf(argument.name(), clients));
}

/**
 * State of a command line: its command, its number of arguments, and the option in need of a value.
 */
function walk(
  program: Command,
  line: readonly string[],
): { command: Command; positionals: number; pending: Option | undefined } {
  let command = program;
  let positionals = 0;
  let pending: Option | undefined;
  for (const word of line) {
    if (pending) {
      pending = undefined;
    } else if (word.startsWith("-")) {
      const option = lineage(command)
        .flatMap((each) => [...each.options])
        .find((each) => each.long === word || each.short === word);
      if (option && (option.required || option.optional)) pending = option;
    } else {
      const next = command.commands.find((each) => each.name() === word || each.aliases().includes(word));
      if (next && positionals === 0) command = next;
      else positionals += 1;
    }
  }
  return { command, positionals, pending };
}

/** The command and all its parents. */
function lineage(command: Command): Command[] {
  return command.parent ? [command, ...lineage(command.parent)] : [command];
}

function optionsOf(command: Command): Candidate[] {
  const options = lineage(command).flatMap((each) => each.createHelp().visibleOptions(each));
  const known = new Map(options.map((option) => [option.long ?? option.short ?? "", option.description]));
  return [...known].map(([flag, description]) => [flag, firstLine(description)]);
}

function firstLine(text: string): string {
  return text.replace(/\n.*$/s, "").replaceAll("\t", " ");
}

const fixed: Record<string, readonly string[]> = {
  "--status": words.runStatus.all,
  "--overlap": words.overlapPolicy.all,
  "--catchup": words.catchupPolicy.all,
  "--notification": words.notification.all,
  "--os": words.os.all,
};

/** Values for an argument or an option by its name; empty for free text. */
async function valuesOf(name: string, clients: () => Clients): Promise<Candidate[]> {
  const known = fixed[name];
  if (known) return known.map((word) => [word, ""]);
  const read = readers[name.replace(/^--/, "")];
  if (!read) return [];
  try {
    return await read(clients());
  } catch {
    // No server or no token: no candidates, and completion is no place for an error.
    return [];
  }
}

const soon = { timeoutMs: askMsMax };
const page = { pageSize: candidatesMax };

const readers: Record<string, (clients: Clients) => Promise<Candidate[]>> = {
  async watcher(clients) {
    const { watchers } = await clients.watchers.listWatchers(page, soon);
    return watchers.map((watcher) => [watcher.slug, watcher.spec?.name ?? ""]);
  },
  async device(clients) {
    const { devices } = await clients.fleet.listDevices(page, soon);
    return devices.map((device) => [device.label, words.liveness.word(device.liveness)]);
  },
  async run(clients) {
    const { runs } = await clients.runs.listRuns(page, soon);
    return runs.map((run) => [run.id, `${run.watcherSlug} ${words.runStatus.word(run.status)}`]);
  },
  async agent(clients) {
    const { agents } = await clients.agents.listAgents(page, soon);
    return agents.map((agent) => [agent.id, agent.name]);
  },
};
