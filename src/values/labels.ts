/**
 * Labels of devices: words by which watchers select their devices. People give labels to a device.
 * A device reports further labels about its programs and its system; a reported label has a ":",
 * which the labels of people cannot have.
 */

/** Maximum labels that people may give one device. */
export const labelsMax = 64;

const labelPattern = /^[a-z0-9][a-z0-9._/=-]{0,62}$/;

/** The reason why people cannot give the text as a label; undefined if people can. */
export function labelProblem(text: string): string | undefined {
  if (labelPattern.test(text)) return undefined;
  const shown = JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text);
  if (/^(has|workspace):/.test(text)) {
    return `${shown} is a label that the device itself reports: configure the executor or workspace on the device`;
  }
  return `${shown} is no label: 1 to 63 of a-z, 0-9, ".", "_", "-", "/" and "=", beginning with a letter or digit`;
}

/** The columns of a device from which its labels are made. */
export type Labelled = {
  os: string;
  machine: unknown;
  executors: readonly unknown[];
  agent_kinds: readonly string[];
  workspaces: readonly unknown[];
  labels: readonly string[];
};

type Named = { kind?: string; name?: string; problem?: string };

/**
 * The labels that a device reports, sorted. An executor or workspace that cannot be used now gives
 * no label.
 */
export function reportedLabels({ executors, agent_kinds, workspaces }: Labelled): string[] {
  const broken = new Set(
    (executors as readonly Named[]).flatMap(({ kind, problem }) => (problem ? [kind] : [])),
  );
  const kinds = agent_kinds.filter((kind) => !broken.has(kind)).map((kind) => `has:${kind}`);
  const places = (workspaces as readonly Named[]).flatMap(({ name, problem }) =>
    name && !problem ? [`workspace:${name}`] : [],
  );
  return [...new Set([...kinds, ...places])].sort();
}

/** The architecture that a device reported, under its one name; empty if unknown. */
export function archOf({ machine }: Pick<Labelled, "machine">): string {
  const { arch = "" } = machine as { arch?: string };
  return archNames[arch.toLowerCase()] ?? arch.toLowerCase();
}

/** Daemons in other languages report other names for the same architecture. */
const archNames: Record<string, string | undefined> = {
  amd64: "x64",
  x86_64: "x64",
  aarch64: "arm64",
};

/** The facts about a device that a selector can use. */
export type Facts = { os: string; arch: string; labels: string[] };

export function factsOf(device: Labelled): Facts {
  return {
    os: device.os,
    arch: archOf(device),
    labels: [...device.labels, ...reportedLabels(device)],
  };
}
