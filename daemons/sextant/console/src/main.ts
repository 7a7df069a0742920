import { mount } from 'svelte';
import App from './App.svelte';
import './app.css';
import { session } from './lib/session.svelte';

const place = document.getElementById('app');
if (place) mount(App, { target: place });
void session.begin();
