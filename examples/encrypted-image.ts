/** An image that only a passphrase opens, and a second one for somebody else. Leaves secret.qcow2 in the current folder. */
import { create, defaultGraph, info, open, secrets } from 'diskwright/node';

secrets(defaultGraph().host).set('mine', 'open sesame').set('yours', 'speak, friend');

await create('secret.qcow2', {
  size: '1G',
  format: 'qcow2',
  options: { 'encrypt.format': 'luks', 'encrypt.key-secret': 'mine', 'encrypt.iter-time': 50 },
});
{
  await using disk = await open('secret.qcow2', { writable: true, driverOptions: { 'encrypt.key-secret': 'mine' } });
  await disk.write(0, new TextEncoder().encode('for your eyes only'));
  await disk.amend({ 'encrypt.state': 'active', 'encrypt.new-secret': 'yours', 'encrypt.iter-time': 50 });
}
{
  await using disk = await open('secret.qcow2', { driverOptions: { 'encrypt.key-secret': 'yours' } });
  console.log(new TextDecoder().decode(await disk.read(0, 18)));
}
const { encrypted } = await info('secret.qcow2');
console.log(`encrypted: ${encrypted}`);
