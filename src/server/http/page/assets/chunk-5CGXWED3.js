import{Na as n}from"./chunk-Z5JTJ2A6.js";function o(){return n("span",{class:"none",children:"–"})}export{o as a};
