/**
 * The chart for Kubernetes: the objects of the kustomize base, from values that its schema knows.
 */
import { execFileSync, spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { serverSettings } from "../../src/config.ts";
import { noticeSkipped } from "../support/notice.ts";
import { findProgram } from "../support/programs.ts";
import { parseYaml } from "../support/yaml.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const chart = join(root, "ops/helm/pinion");
const read = (path: string) => readFileSync(join(chart, path), "utf8");
const templates = readdirSync(join(chart, "templates")).map((name) => read(`templates/${name}`));

test("the chart has the version of the package", () => {
  const { version } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  expect(read("Chart.yaml")).toContain(`\nversion: ${version}\nappVersion: "${version}"\n`);
});

test("every value of a template has a default and a rule, and every default is used", () => {
  const rules = JSON.parse(read("values.schema.json")).properties as Record<
    string,
    { properties?: Record<string, unknown> }
  >;
  const used = new Set(
    templates.flatMap((text) =>
      [...text.matchAll(/\.Values\.([a-zA-Z]+(?:\.[a-z][a-zA-Z]+)?)/g)].map(([, path]) => path!),
    ),
  );
  const defaults = [...read("values.yaml").matchAll(/^([a-zA-Z]+):/gm)].map(([, name]) => name!);
  expect(Object.keys(rules).filter((name) => name !== "global")).toEqual(defaults);
  for (const path of used) {
    const [group, name] = path.split(".") as [string, string?];
    expect(defaults, path).toContain(group);
    if (name && rules[group]!.properties)
      expect(Object.keys(rules[group]!.properties!), path).toContain(name);
  }
  for (const name of defaults) {
    expect(
      [...used].some((path) => path.split(".")[0] === name),
      `${name} is used nowhere`,
    ).toBe(true);
  }
});

test("variables of the chart are variables of the configuration", () => {
  const names = [read("values.yaml"), ...templates].flatMap((text) =>
    [...text.matchAll(/\b(?:PINION|DATABASE)_[A-Z_]+/g)].map(([name]) => name),
  );
  const known = new Set([...Object.keys(serverSettings.shape), "PINION_DATA"]);
  expect([...new Set(names)].filter((name) => !known.has(name))).toEqual([]);
});

const helm = findProgram("helm", process.env.PINION_HELM);
if (!helm) noticeSkipped("helm lint and helm template", "no helm here (or PINION_HELM=<path>)");

describe.runIf(helm)("helm", () => {
  const type = (...args: string[]) => spawnSync(helm!, args, { encoding: "utf8" });
  const render = (...values: string[]) => {
    const given = values.flatMap((value) => ["--set", value]);
    return execFileSync(helm!, ["template", "pinion", chart, "--kube-version", "1.31.0", ...given], {
      encoding: "utf8",
    });
  };
  type Objects = { kind: string; metadata: object; spec?: object }[];
  const objects = (text: string) =>
    (parseYaml(text.replaceAll(/^# Source: .*\n/gm, "")) as unknown as (Objects[number] | null)[]).filter(
      (object) => object !== null,
    );

  test("its lint finds nothing, also with everything turned on", () => {
    for (const values of [
      "secret.existing=x",
      "secret.existing=x,ingress.enabled=true,publicUrl=https://x",
    ]) {
      const { status, stdout } = type("lint", "--strict", chart, "--set", values);
      expect([status, stdout]).toEqual([0, expect.stringContaining("0 chart(s) failed")]);
    }
  });

  test("the defaults are the objects of the kustomize base", () => {
    const base = ["service-account", "deployment", "service", "pod-disruption-budget", "network-policy"].map(
      (name) => parseYaml(readFileSync(join(root, `ops/kubernetes/base/${name}.yaml`), "utf8"))[0],
    ) as unknown as Objects;
    const rendered = objects(render("secret.existing=pinion"));
    expect(rendered.map(({ kind }) => kind).sort()).toEqual(base.map(({ kind }) => kind).sort());
    for (const { kind, spec } of base) {
      if (spec) expect(rendered.find((object) => object.kind === kind)!.spec, kind).toMatchObject(spec);
    }
  });

  test("a Secret, an ingress, an address and variables come from values; mistakes are told", () => {
    const text = render(
      "secret.values.DATABASE_URL=postgres://db/pinion",
      "ingress.enabled=true,ingress.tlsSecret=certificate,publicUrl=https://pinion.example.org",
      "env.PINION_LOG_LEVEL=debug,shutdownMs=60000,podDisruptionBudget.enabled=false",
    );
    expect(
      objects(text)
        .map(({ kind }) => kind)
        .sort(),
    ).toEqual(["Deployment", "Ingress", "NetworkPolicy", "Secret", "Service", "ServiceAccount"]);
    expect(text).toContain('name: PINION_LOG_LEVEL\n              value: "debug"');
    expect(text).toContain('name: PINION_PUBLIC_URL\n              value: "https://pinion.example.org"');
    expect(text).toContain("terminationGracePeriodSeconds: 85");
    const template = (values: string) =>
      type("template", "pinion", chart, "--kube-version", "1.31.0", "--set", values);
    expect(template("replicas=2").stderr).toContain("set secret.values.DATABASE_URL");
    expect(template("secret.existing=x,replica=3").stderr).toMatch(/replica/);
    expect(template("secret.existing=x,publicUrl=pinion.lab").stderr).toMatch(/publicUrl/);
  });
});
