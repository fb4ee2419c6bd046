/** Changing an existing image's options (Q-AM): a plan that nothing speaks against, then its steps, each crash-safe. */
import type { AmendContext } from '../../core/driver.ts';
import type { OptionTree } from '../../core/options.ts';
import { parseAmendOptions } from './amend-options.ts';
import { type AmendPlan, planAmendment } from './amend-plan.ts';
import { downgrade, upgrade } from './downgrade.ts';
import { Autoclear, Compatible } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { markClean } from './lazy.ts';
import { changeRefcountOrder } from './refcount-order.ts';
import { flushAll } from './write-back.ts';
import { changeHeader } from './write-header.ts';

/** No request is under way. Throws BlockError; what is refused is refused before anything is changed. */
export async function amend(image: Qcow2Image, tree: OptionTree, how: AmendContext): Promise<void> {
  image.requireUsable();
  await flushAll(image);
  const plan = await planAmendment(image, parseAmendOptions(tree), how);
  how.signal?.throwIfAborted();
  // Counts are right in the file from here on, and no mark says otherwise.
  await markClean(image);
  if (plan.upgrade) await upgrade(image);
  await plan.keySlots?.();
  if (plan.refcountOrder !== undefined) await changeRefcountOrder(image, plan.refcountOrder, how.progress);
  await changeDataFile(image, plan);
  if (plan.lazyRefcounts !== undefined) await setLazy(image, plan.lazyRefcounts);
  if (plan.size !== undefined) await how.truncate(plan.size);
  if (plan.downgrade) await downgrade(image, how.progress);
  await flushAll(image);
}

async function changeDataFile(image: Qcow2Image, { rawDataFile, dataFile }: AmendPlan): Promise<void> {
  const { autoclear } = image.header;
  const next = rawDataFile === false ? autoclear & ~Autoclear.rawDataFile : autoclear;
  if (next === autoclear && dataFile === undefined) return;
  const records = dataFile === undefined ? {} : { dataFile: dataFile === '' ? undefined : dataFile };
  await changeHeader(image, { autoclear: next }, records);
}

/** For this session too, whatever it was opened with. */
async function setLazy(image: Qcow2Image, lazyRefcounts: boolean): Promise<void> {
  const { compatible } = image.header;
  const next = lazyRefcounts ? compatible | Compatible.lazyRefcounts : compatible & ~Compatible.lazyRefcounts;
  if (next !== compatible) await changeHeader(image, { compatible: next });
  image.settings = { ...image.settings, lazyRefcounts };
}
