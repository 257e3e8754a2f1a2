/**
 * Names of the databases of a run of the tests; the template's name holds the run's random part.
 */
import { randomBytes } from "node:crypto";

export const newTemplateName = () => `pinion_template_${randomBytes(4).toString("hex")}`;

/** The beginning of the names of the tests' databases. */
export const testDatabasesOf = (template: string) =>
  template.replace("pinion_template_", "test_").concat("_");
